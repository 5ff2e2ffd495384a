// Puts a guest into private memory as the guest interface promises: image, page tables, descriptors
// and boot information; and the registers every vCPU is entered with.
//
// The loader's pages lie in the first MiB:
//   0x1000 GDT   0x2000 TSS and I/O bitmap   0x6000 boot information   0x7000 command line
//   0x10000 PML4, PDPTs   0x20000 page directories (2 MiB pages)
// Virtual = guest physical for all RAM; with bit 46 set the same frame through the shared alias.
#ifndef TWINROOT_DAEMON_VCPU_KVM_BOOT_LOADER_H_
#define TWINROOT_DAEMON_VCPU_KVM_BOOT_LOADER_H_

#include <linux/kvm.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/memory/guest_ram.h"
#include "daemon/vcpu/kvm/boot_plan.h"

namespace twinroot::kvm {

// Where the program goes: the first page after the image. kInvalidArgument if it would reach into
// the stacks.
absl::StatusOr<uint64_t> PlaceProgram(const BootPlan& plan, uint64_t memory_bytes);

// Writes everything through the daemon's own view of private memory. The plan was checked.
absl::Status LoadGuest(const BootPlan& plan, memory::GuestRam& ram);

// Changes `sregs` (as KVM_GET_SREGS gave them) and fills `regs` for 64-bit long mode entry.
void SetEntryState(const BootPlan& plan, uint64_t low_memory_bytes, uint32_t vcpu, kvm_sregs& sregs,
                   kvm_regs& regs);

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_BOOT_LOADER_H_
