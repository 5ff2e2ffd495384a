// The walk "EPT violation", after the exit was decoded (behaviour D1, in that order): snapshot of
// the invalidation sequence; attribute; memslot; backing; resolve the page without locks; re-check
// and map under the lock.
//
// Thread-safe, many at once. A fault changes nothing but slots that were empty.
#ifndef TWINROOT_MMU_VM_FAULT_HANDLER_H_
#define TWINROOT_MMU_VM_FAULT_HANDLER_H_

#include "mmu/vm/address_space_state.h"

namespace twinroot::mmu {

FaultOutcome HandleFault(AddressSpaceState& vm, const Fault& fault);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_FAULT_HANDLER_H_
