// The software's own bits in EPT entries, and the words of slots at rest and in change.
//
// An entry that is not present (R = W = X = 0, and the user-execute bit 0) is ignored but for bit
// 63, so its other bits are free; in present entries those of EptEntry::kIgnoredMask are. Constants
// and pure functions.
#ifndef TWINROOT_MMU_HW_SOFT_BITS_H_
#define TWINROOT_MMU_HW_SOFT_BITS_H_

#include <cstdint>

#include "mmu/hw/ept_entry.h"

namespace twinroot::mmu {

// This slot holds a leaf or a link of the engine's, present for a processor or not: it stays set in
// a leaf whose rights were taken away to see the next access. Empty, frozen and MMIO entries never
// have it.
inline constexpr uint64_t kMmuPresent = uint64_t{1} << 11;
// The rights of a leaf that access tracking took away, where there are no accessed flags. Write is
// never saved: the fault that gives the rest back asks the dirty log about it.
inline constexpr uint64_t kSavedRead = uint64_t{1} << 52;
inline constexpr uint64_t kSavedFetch = uint64_t{1} << 53;
// Fetch is withheld from a large leaf by the NX-huge-page mitigation, not by an attribute.
inline constexpr uint64_t kNxHugePage = uint64_t{1} << 54;
// Write is withheld by dirty logging: the leaf may get it back without asking anybody else.
inline constexpr uint64_t kMayWrite = uint64_t{1} << 55;

inline constexpr uint64_t kSoftBits =
    kMmuPresent | kSavedRead | kSavedFetch | kNxHugePage | kMayWrite;
// Pairwise disjoint: the sum has no carry, hence it equals the union. Ignored by every processor.
static_assert(kMmuPresent + kSavedRead + kSavedFetch + kNxHugePage + kMayWrite == kSoftBits);
static_assert((kMmuPresent ^ kSavedRead ^ kSavedFetch ^ kNxHugePage ^ kMayWrite) == kSoftBits);
static_assert((kSoftBits & ~EptEntry::kIgnoredMask) == 0);

// An empty slot. Arenas are zeroed, so a fresh table is empty.
inline constexpr EptEntry kEmptyEntry{0};

// A slot in the middle of a multi-step change: a processor sees "not present", software retries.
// The pattern cannot arise from an empty slot, nor from an entry with kMmuPresent.
inline constexpr EptEntry kFrozenEntry{(uint64_t{1} << 62) | (uint64_t{0x5A} << 52)};

// The same two where the "EPT-violation #VE" control is on: without bit 63 the guest itself would
// hear of the violation. Tables are filled with the first one then.
inline constexpr EptEntry kEmptySuppressVe = kEmptyEntry.WithSuppressVe(true);
inline constexpr EptEntry kFrozenSuppressVe = kFrozenEntry.WithSuppressVe(true);

constexpr bool IsEmpty(EptEntry entry) { return entry.WithSuppressVe(false) == kEmptyEntry; }
constexpr bool IsFrozen(EptEntry entry) { return entry.WithSuppressVe(false) == kFrozenEntry; }

constexpr bool IsMmuPresent(EptEntry entry) { return entry.raw() & kMmuPresent; }
constexpr EptEntry WithMmuPresent(EptEntry entry) { return EptEntry(entry.raw() | kMmuPresent); }
// The engine's link to a table.
constexpr EptEntry LinkTo(Hpa table) { return WithMmuPresent(EptEntry::Table(table)); }
// Of an entry above the PT: such a link, in one comparison.
constexpr bool IsMmuLink(EptEntry entry) {
  return (entry.raw() & (kMmuPresent | EptEntry::kPageSize)) == kMmuPresent;
}

// A leaf of the engine's that no processor may use until an access gives its rights back.
constexpr bool HasSavedAccess(EptEntry entry) {
  return IsMmuPresent(entry) && !entry.Present(true);
}
// Takes every right of a leaf away, keeping R and X aside. A leaf without either (none is made) and
// one that already is so are returned as they are.
constexpr EptEntry WithSavedAccess(EptEntry leaf) {
  const Access rights = leaf.access();
  if (!rights.read() && !rights.fetch()) return leaf;
  const uint64_t saved = (rights.read() ? kSavedRead : 0) | (rights.fetch() ? kSavedFetch : 0);
  return EptEntry(leaf.WithAccess(Access::None()).raw() | saved);
}
// Gives R and X back. Write and, with it, what kMayWrite says are the caller's.
constexpr EptEntry WithRestoredAccess(EptEntry leaf) {
  const Access saved = (leaf.raw() & kSavedRead ? Access::Read() : Access::None()) |
                       (leaf.raw() & kSavedFetch ? Access::Fetch() : Access::None());
  return EptEntry(leaf.raw() & ~(kSavedRead | kSavedFetch)).WithAccess(leaf.access() | saved);
}

// The leaf with what a write needs, if that was only withheld; and without it, to be given back.
constexpr bool MayWrite(EptEntry leaf) { return leaf.raw() & kMayWrite; }
constexpr EptEntry WithWrite(EptEntry leaf) {
  return EptEntry((leaf.raw() & ~kMayWrite) | EptEntry::kWrite);
}
constexpr EptEntry WithoutWrite(EptEntry leaf) {
  return leaf.raw() & EptEntry::kWrite ? EptEntry((leaf.raw() & ~EptEntry::kWrite) | kMayWrite)
                                       : leaf;
}
// The large leaf with fetch only withheld, if it grants it; and with it given back: a leaf whose
// rights are all taken away for a while stays so, and X comes back with the rest.
constexpr bool IsNxHugePage(EptEntry leaf) { return leaf.raw() & kNxHugePage; }
constexpr EptEntry WithoutHugeFetch(EptEntry leaf) {
  constexpr uint64_t kFetch = EptEntry::kExecute | EptEntry::kExecuteUser;
  return leaf.raw() & EptEntry::kExecute ? EptEntry((leaf.raw() & ~kFetch) | kNxHugePage) : leaf;
}
constexpr EptEntry WithHugeFetch(EptEntry leaf) {
  if (!IsNxHugePage(leaf)) return leaf;
  return EptEntry(
      (leaf.raw() & ~kNxHugePage) |
      (HasSavedAccess(leaf) ? kSavedFetch : EptEntry::kExecute | EptEntry::kExecuteUser));
}

// The leaf without every right that is not in `keep`, granted, withheld or saved. `keep` has no W
// without R.
constexpr EptEntry WithOnly(EptEntry leaf, Access keep) {
  const uint64_t gone = (keep.read() ? 0 : kSavedRead) | (keep.write() ? 0 : kMayWrite) |
                        (keep.fetch() ? 0 : kSavedFetch | kNxHugePage);
  return EptEntry(leaf.raw() & ~gone).WithAccess(leaf.access() & keep);
}

static_assert(!kEmptyEntry.Present(true) && !kFrozenEntry.Present(true));
static_assert(!kEmptySuppressVe.Present(true) && !kFrozenSuppressVe.Present(true));
static_assert((kFrozenEntry.raw() & (EptEntry::kAddressMask | EptEntry::kSuppressVe)) == 0);
static_assert((kFrozenEntry.raw() & kMmuPresent) == 0 && (kEmptyEntry.raw() & kMmuPresent) == 0);
static_assert(kFrozenEntry != kEmptyEntry);
static_assert(IsEmpty(kEmptySuppressVe) && IsFrozen(kFrozenSuppressVe) && !IsEmpty(kFrozenEntry) &&
              !IsFrozen(kEmptySuppressVe));

// RWX leaf -> tracked -> RX leaf; the dirty flag and kMayWrite stay.
static_assert(WithSavedAccess(EptEntry(0x80'0000'0000'5E37)).raw() == 0xB0'0000'0000'5A30);
static_assert(WithRestoredAccess(EptEntry(0xB0'0000'0000'5A30)).raw() == 0x80'0000'0000'5E35);
static_assert(HasSavedAccess(EptEntry(0xB0'0000'0000'5A30)) &&
              !HasSavedAccess(EptEntry(0x80'0000'0000'5E37)) && !HasSavedAccess(kFrozenEntry));
static_assert(WithWrite(WithoutWrite(EptEntry(0x5C37))) == EptEntry(0x5C37));
static_assert(WithWrite(WithRestoredAccess(WithSavedAccess(WithoutWrite(EptEntry(0x5C37))))) ==
              EptEntry(0x5C37));
static_assert(LinkTo(Hpa(0x7000)).raw() == 0x7C07);
static_assert(IsMmuLink(LinkTo(Hpa(0x7000))) && !IsMmuLink(EptEntry(0x20'0CB7)) &&
              !IsMmuLink(kEmptyEntry) && !IsMmuLink(kFrozenEntry));
static_assert(WithoutHugeFetch(EptEntry(0x20'0CB7)).raw() == 0x40'0000'0020'08B3);
static_assert(WithHugeFetch(WithoutHugeFetch(EptEntry(0x20'0CB7))).raw() == 0x20'0CB7);
static_assert(WithHugeFetch(WithSavedAccess(WithoutHugeFetch(EptEntry(0x20'0CB5)))) ==
              WithSavedAccess(EptEntry(0x20'0CB5)));
// Execute-only stays execute-only.
static_assert(WithRestoredAccess(WithSavedAccess(EptEntry(0x5C34))).raw() == 0x5C34);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_HW_SOFT_BITS_H_
