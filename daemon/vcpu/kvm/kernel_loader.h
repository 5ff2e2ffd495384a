// Puts an operating system's kernel into private memory, with its initrd, command line, memory map
// and ACPI tables, and says how its first vCPU is entered; the others wait for its start-up signal.
//
// The first MiB: 0x1000 GDT   0x6000 PVH start information   0x7000 Linux boot parameters
//   0x9000 page tables (4 GiB, virtual = guest physical)   0x20000 command line
//   0xE0000 ACPI tables, the only part that the memory map does not give to the kernel
#ifndef TWINROOT_DAEMON_VCPU_KVM_KERNEL_LOADER_H_
#define TWINROOT_DAEMON_VCPU_KVM_KERNEL_LOADER_H_

#include <linux/kvm.h>

#include <cstdint>

#include "absl/status/status.h"
#include "daemon/memory/guest_ram.h"
#include "daemon/vcpu/kvm/boot_plan.h"

namespace twinroot::kvm {

// All of these: plan.image.kernel().

// kInvalidArgument: kernel and initrd do not fit into low memory, or the command line is too long
// for this kernel.
absl::Status CheckKernel(const BootPlan& plan, uint64_t memory_bytes);

// Writes everything through the daemon's own view of private memory. The plan was checked.
void LoadKernel(const BootPlan& plan, memory::GuestRam& ram);

// Of vCPU 0; changes `sregs` as KVM_GET_SREGS gave them.
void SetKernelEntry(const GuestImage& image, kvm_sregs& sregs, kvm_regs& regs);

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_KERNEL_LOADER_H_
