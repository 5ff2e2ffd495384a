// Changing the guest's memory types: what has another type afterwards is mapped anew (F12).
// Thread-safe.
#ifndef TWINROOT_MMU_VM_MEM_TYPE_CHANGE_H_
#define TWINROOT_MMU_VM_MEM_TYPE_CHANGE_H_

#include "absl/status/status.h"
#include "mmu/vm/address_space_state.h"

namespace twinroot::mmu {

absl::Status ChangeMemTypes(AddressSpaceState& vm, const MemTypes& types);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_MEM_TYPE_CHANGE_H_
