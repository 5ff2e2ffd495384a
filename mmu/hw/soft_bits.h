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

// This engine's own mark of a slot that holds a link or a leaf, also of a leaf whose rights were
// all taken away for a while. Bit 11 is ignored in every kind of EPT entry.
inline constexpr uint64_t kMmuPresent = uint64_t{1} << 11;
// Rights that the engine withholds and may give back by one exchange: write (dirty logging), and
// what access tracking without A bits took (write is never saved there).
inline constexpr uint64_t kMayWrite = uint64_t{1} << 52;
inline constexpr uint64_t kSavedRead = uint64_t{1} << 53;
inline constexpr uint64_t kSavedFetch = uint64_t{1} << 54;
// Fetch is withheld because the leaf is large (NX-huge-page mitigation).
inline constexpr uint64_t kNxHugePage = uint64_t{1} << 55;

// An empty slot. Arenas are zeroed, so a fresh table is empty.
inline constexpr EptEntry kEmptyEntry{0};

// A slot in the middle of a multi-step change: a processor sees "not present", software retries.
// The pattern cannot arise from an empty or a present word.
inline constexpr EptEntry kFrozenEntry{(uint64_t{1} << 62) | (uint64_t{0x5A} << 52)};

// A cached "no memory here": neither empty, frozen, a link nor a leaf; W and X without R, which a
// processor reports as a misconfiguration.
constexpr bool IsMmioMark(EptEntry entry) {
  return (entry.raw() & (EptEntry::kRightsMask | kMmuPresent)) ==
         (EptEntry::kWrite | EptEntry::kExecute);
}

// The leaf with what a write needs, if that was only withheld.
constexpr EptEntry WithWrite(EptEntry leaf) {
  return EptEntry((leaf.raw() & ~kMayWrite) | EptEntry::kWrite);
}
// The leaf without W, to be given back by WithWrite.
constexpr EptEntry WithoutWrite(EptEntry leaf) {
  return leaf.raw() & EptEntry::kWrite ? EptEntry((leaf.raw() & ~EptEntry::kWrite) | kMayWrite)
                                       : leaf;
}

constexpr bool MayWrite(EptEntry leaf) { return leaf.raw() & kMayWrite; }
constexpr bool IsNxHugePage(EptEntry leaf) { return leaf.raw() & kNxHugePage; }

// Access tracking without A bits: the leaf with all rights taken away, R and X remembered. W is
// never saved: a write must go through its own check again (it stays withheld).
constexpr EptEntry WithRightsSaved(EptEntry leaf) {
  const Access access = leaf.access();
  const EptEntry bare = WithoutWrite(leaf).WithAccess(Access::None());
  return EptEntry(bare.raw() | (access.read() ? kSavedRead : 0) |
                  (access.fetch() ? kSavedFetch : 0));
}
constexpr bool HasSavedRights(EptEntry leaf) { return leaf.raw() & (kSavedRead | kSavedFetch); }
constexpr EptEntry WithSavedRights(EptEntry leaf) {
  const Access saved = (leaf.raw() & kSavedRead ? Access::Read() : Access::None()) |
                       (leaf.raw() & kSavedFetch ? Access::Fetch() : Access::None());
  return EptEntry(leaf.raw() & ~(kSavedRead | kSavedFetch)).WithAccess(saved);
}

// The leaf without every right that is not in `keep`, granted or withheld. `keep` has no W without
// R.
constexpr EptEntry WithOnly(EptEntry leaf, Access keep) {
  const uint64_t gone = (keep.read() ? 0 : kSavedRead) | (keep.write() ? 0 : kMayWrite) |
                        (keep.fetch() ? 0 : kSavedFetch | kNxHugePage);
  return EptEntry(leaf.raw() & ~gone).WithAccess(leaf.access() & keep);
}

static_assert(!kEmptyEntry.Present(true) && !kFrozenEntry.Present(true));
static_assert((kFrozenEntry.raw() & (EptEntry::kAddressMask | EptEntry::kSuppressVe)) == 0);
static_assert(kFrozenEntry != kEmptyEntry);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_HW_SOFT_BITS_H_
