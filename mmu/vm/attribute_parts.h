// What a change of attributes comes to: the pages that really change, what becomes of their leaves,
// and which large pages may come back. Looking only, for the change itself and for its dry run.
#ifndef TWINROOT_MMU_VM_ATTRIBUTE_PARTS_H_
#define TWINROOT_MMU_VM_ATTRIBUTE_PARTS_H_

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "mmu/vm/address_space_state.h"

namespace twinroot::mmu {

// Why a caller's range cannot be used, with its name: empty, wrapping, aliased, or beyond memory.
// OK: all of it lies in memslots.
absl::Status CheckRange(const AddressSpaceState& vm, const MmuRead& read, GfnRange range);
// The caller's errors, all ranges together; the bad range is named by index and address.
absl::Status CheckChange(const AddressSpaceState& vm, const MmuRead& read,
                         const AttributeChange& change);

// Pages side by side in one memslot that change alike.
struct AttributePart {
  GfnRange range;
  size_t index;  // of the caller's range
  MemoryAttributes from;
  MemoryAttributes to;  // not equal

  bool converts() const { return from.kind != to.kind; }
  bool redenies() const { return from.denied != to.denied; }
};
// After CheckChange. Ordered by frame.
std::vector<AttributePart> PartsOf(const AddressSpaceState& vm, const MmuRead& read,
                                   const AttributeChange& change);
// kFailedPrecondition: its memslot has no backing of the kind that it would get.
absl::Status CheckBacking(const AddressSpaceState& vm, const MmuRead& read,
                          const AttributePart& part);
// The same error, with the name of the part's range.
absl::Status Named(const AttributePart& part, const absl::Status& status);
// Takes out the parts of ranges whose status is not OK.
void DropRefused(const AttributeChangeResult& result, std::vector<AttributePart>& parts);
// The status of the call under its atomicity; kAllOrNothing: the first refusal.
absl::Status StatusOf(const AttributeChange& change, const AttributeChangeResult& result);
// Fills what was, or would be, converted and redenied.
void Report(absl::Span<const AttributePart> parts, AttributeChangeResult& result);

// What becomes of the leaves over some pages of one kind. Ordered by frame, maximal.
struct LeafAction {
  GfnRange range;
  MemoryKind kind;
  Access keep;  // none: they go; else they stay with at most these rights
};
std::vector<LeafAction> ActionsOf(absl::Span<const AttributePart> parts);
// What a leaf of this alias keeps.
Access KeptBy(const Root& alias, const LeafAction& action);

// The largest leaf that may end, or begin, at `end`: what reaches over it is split down to that.
// Nullopt: nothing reaches over it.
std::optional<Level> LargestBeside(Gfn end);

// A large range around an end of what changes, where a large page may come back.
struct RecoverySpot {
  Gfn first;
  Level level;
  MemoryAttributes to;
};
// Largest first. Not yet asked: whether the range is uniform afterwards.
std::vector<RecoverySpot> SpotsOf(absl::Span<const AttributePart> parts);

// All pages of the parts, merged.
std::vector<GfnRange> Ranges(absl::Span<const AttributePart> parts);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_ATTRIBUTE_PARTS_H_
