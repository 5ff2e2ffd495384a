// Which pages were accessed since somebody last asked (F6).
//
// With accessed flags each is taken by one exchange, and nothing is flushed: a processor that still
// has the translation sets no flag, so a page may count as idle once too often. That is a hint for
// reclaim, not a promise, and dropping every TLB entry would cost the guest more than it is worth.
// Without them a leaf loses all rights, which it remembers, and that is flushed: the next access
// faults and gets R and X back by one exchange. W goes through the dirty log again.
//
// Thread-safe: takes the Turn chunk by chunk (1 GiB).
#ifndef TWINROOT_MMU_VM_AGING_H_
#define TWINROOT_MMU_VM_AGING_H_

#include "absl/status/statusor.h"
#include "mmu/vm/address_space_state.h"

namespace twinroot::mmu {

absl::StatusOr<AgeResult> TestAndClearAccessed(AddressSpaceState& vm, GfnRange range);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_AGING_H_
