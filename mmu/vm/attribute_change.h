// The walk "SetMemoryAttributes" (behaviours D4, D5, D6), in this order: check everything; find
// what really changes; reserve pages and attribute nodes; begin; zap the kind that no longer holds,
// one flush; copy if the bytes stay, discard the old backing; commit; end.
//
// Thread-safe: changes take turns. After the first visible step only an external table can fail.
#ifndef TWINROOT_MMU_VM_ATTRIBUTE_CHANGE_H_
#define TWINROOT_MMU_VM_ATTRIBUTE_CHANGE_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu/vm/address_space_state.h"

namespace twinroot::mmu {

absl::StatusOr<AttributeChangeResult> ChangeAttributes(AddressSpaceState& vm,
                                                       const AttributeChange& change);

// Why a caller's range cannot be used, with its name: empty, wrapping, aliased, or beyond memory.
// OK: all of it lies in memslots.
absl::Status CheckRange(const AddressSpaceState& vm, const MmuRead& read, GfnRange range);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_ATTRIBUTE_CHANGE_H_
