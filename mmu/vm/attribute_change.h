// The walk "SetMemoryAttributes" (behaviours D4, D5, D6, D11), in this order: check everything;
// find what really changes; reserve pages and attribute nodes; split the leaves that reach over the
// ends; begin; zap the kind that no longer holds, or take rights away, one flush; copy if the bytes
// stay, discard the old backing; commit; end; make pages large again around the ends.
//
// Thread-safe: changes take turns. After the first visible step only an external table can fail.
#ifndef TWINROOT_MMU_VM_ATTRIBUTE_CHANGE_H_
#define TWINROOT_MMU_VM_ATTRIBUTE_CHANGE_H_

#include "absl/status/statusor.h"
#include "mmu/vm/address_space_state.h"
#include "mmu/vm/attribute_parts.h"

namespace twinroot::mmu {

absl::StatusOr<AttributeChangeResult> ChangeAttributes(AddressSpaceState& vm,
                                                       const AttributeChange& change);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_ATTRIBUTE_CHANGE_H_
