// The software's own bits in EPT entries: bits that the processor ignores.
//
// An entry that is not present (R = W = X = 0, and the user-execute bit 0) is ignored but for bit
// 63, so its other bits are free. In present entries 56:52, 59 and 62 are ignored under every
// control that this engine turns on.
#ifndef TWINROOT_MMU_HW_SOFT_BITS_H_
#define TWINROOT_MMU_HW_SOFT_BITS_H_

#include <cstdint>

#include "mmu/hw/ept_entry.h"

namespace twinroot::mmu {

// An empty slot. Arenas are zeroed, so a fresh table is empty.
inline constexpr EptEntry kEmptyEntry{0};

// A slot in the middle of a multi-step change: a processor sees "not present", software retries.
// The pattern cannot arise from an empty or a present word.
inline constexpr EptEntry kFrozenEntry{(uint64_t{1} << 62) | (uint64_t{0x5A} << 52)};

static_assert(!kEmptyEntry.Present(true) && !kFrozenEntry.Present(true));
static_assert((kFrozenEntry.raw() & (EptEntry::kAddressMask | EptEntry::kSuppressVe)) == 0);
static_assert(kFrozenEntry != kEmptyEntry);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_HW_SOFT_BITS_H_
