// Whose tables a VM's processor walks.
#ifndef TWINROOT_MMU_VM_MMU_MODE_H_
#define TWINROOT_MMU_VM_MMU_MODE_H_

#include <cstdint>

namespace twinroot::mmu {

// Who translates the guest's addresses.
enum class MmuMode : uint8_t {
  kTdp,     // EPT tables of the VM, by guest-physical address; the processor walks the guest's own
  kShadow,  // tables that stand in for the guest's, by linear address; there is no EPT
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_MMU_MODE_H_
