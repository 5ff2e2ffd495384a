// The walk "EPT violation", after the exit was decoded (behaviour D1, in that order): snapshot of
// the invalidation sequence; attribute; memslot; backing; rights; the page, resolved outside of any
// guard; freeze the slot; re-check; publish.
//
// Thread-safe, many at once, without a lock and without a written line in common.
#ifndef TWINROOT_MMU_VM_FAULT_HANDLER_H_
#define TWINROOT_MMU_VM_FAULT_HANDLER_H_

#include "mmu/vm/address_space_state.h"

namespace twinroot::mmu {

FaultOutcome HandleFault(AddressSpaceState& vm, const Fault& fault);

// As which a fault that ended so is counted.
VmCount CountOf(const FaultOutcome& outcome);

// The same for an access that needs nothing and that nobody makes: maps the page, leaves no MMIO
// mark, and is not counted as a fault.
FaultOutcome PopulatePage(AddressSpaceState& vm, Gpa gpa);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_FAULT_HANDLER_H_
