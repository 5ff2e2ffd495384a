// What a page of guest memory is: private or shared, and which accesses are denied (D11).
#ifndef TWINROOT_MMU_TYPES_MEMORY_ATTRIBUTES_H_
#define TWINROOT_MMU_TYPES_MEMORY_ATTRIBUTES_H_

#include <cstdint>

#include "mmu/types/access.h"
#include "mmu/types/memory_kind.h"

namespace twinroot::mmu {

// Denying read denies write too: an entry that is writable and not readable is a misconfiguration.
struct MemoryAttributes {
  MemoryKind kind = MemoryKind::kShared;
  Access denied = Access::None();

  // What a leaf over such pages may grant at most.
  constexpr Access allowed() const {
    Access rights = Access::All().Without(denied);
    return rights.read() ? rights : rights.Without(Access::Write());
  }
  // All of it in 4 bits: bit 0 shared, bits 3:1 the denied rights as Access has them.
  constexpr uint8_t word() const {
    return static_cast<uint8_t>(static_cast<unsigned>(kind) | unsigned{denied.bits()} << 1);
  }
  static constexpr MemoryAttributes FromWord(uint8_t word) {
    return {static_cast<MemoryKind>(word & 1), Access::FromBits(word >> 1 & 7)};
  }
  friend constexpr bool operator==(MemoryAttributes, MemoryAttributes) = default;
};

inline constexpr int kMemoryAttributesBits = 4;
static_assert(MemoryAttributes::FromWord(0b1011).word() == 0b1011);
static_assert(MemoryAttributes{MemoryKind::kPrivate, Access::Read()}.allowed() == Access::Fetch());

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TYPES_MEMORY_ATTRIBUTES_H_
