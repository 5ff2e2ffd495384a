// Making large again what the NX-huge-page mitigation made small (F8): a page that is fetched from
// again is split again, one that is not stays large.
#ifndef TWINROOT_MMU_VM_NX_MITIGATION_H_
#define TWINROOT_MMU_VM_NX_MITIGATION_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "mmu/vm/address_space_state.h"

namespace twinroot::mmu {

// The oldest `max` ranges of the record, each in its own Turn, in place. While the dirty log is on
// nothing is taken: its end makes pages large anyway. Thread-safe.
absl::StatusOr<RecoverResult> RecoverNxHugePages(AddressSpaceState& vm, uint64_t max);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_NX_MITIGATION_H_
