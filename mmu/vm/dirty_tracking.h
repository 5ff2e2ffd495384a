// The walk "Dirty log with eager splitting": starting, harvesting, clearing and ending the log,
// with the splitting and recovery of large pages around it (F3, F4, F5).
//
// Thread-safe: each takes the Turn chunk by chunk (1 GiB), so faults and conversions go on between.
#ifndef TWINROOT_MMU_VM_DIRTY_TRACKING_H_
#define TWINROOT_MMU_VM_DIRTY_TRACKING_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu/vm/address_space_state.h"

namespace twinroot::mmu {

absl::StatusOr<SplitResult> EnableDirtyLog(AddressSpaceState& vm, const DirtyLogOptions& options);
absl::StatusOr<RecoverResult> DisableDirtyLog(AddressSpaceState& vm);
absl::StatusOr<DirtyPages> HarvestDirty(AddressSpaceState& vm, GfnRange range);
absl::StatusOr<std::vector<Gfn>> HarvestDirtyRing(AddressSpaceState& vm, uint32_t vcpu, size_t max);
absl::Status ClearDirty(AddressSpaceState& vm, const DirtyPages& pages);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_DIRTY_TRACKING_H_
