// The dry run of a change of attributes: what it would do to leaves, tables and bytes. Looks, and
// changes nothing: no node is split, no page resolved.
#ifndef TWINROOT_MMU_VM_ATTRIBUTE_PLAN_H_
#define TWINROOT_MMU_VM_ATTRIBUTE_PLAN_H_

#include "absl/status/statusor.h"
#include "mmu/vm/address_space_state.h"

namespace twinroot::mmu {

// Thread-safe: takes the Turn, so that no other change comes between. Faults go on, and may make
// leaves that the plan has not seen.
absl::StatusOr<AttributeChangePlan> PlanAttributes(const AddressSpaceState& vm,
                                                   const AttributeChange& change);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_ATTRIBUTE_PLAN_H_
