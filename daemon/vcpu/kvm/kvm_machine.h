// A VM on the host's KVM: its file descriptors, its two projections, its vCPUs, and the thread that
// turns userfaultfd messages into EPT violations.
#ifndef TWINROOT_DAEMON_VCPU_KVM_KVM_MACHINE_H_
#define TWINROOT_DAEMON_VCPU_KVM_KVM_MACHINE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/memory/guest_ram.h"
#include "daemon/vcpu/kvm/boot_plan.h"
#include "daemon/vcpu/kvm/kvm_system.h"
#include "daemon/vcpu/machine.h"
#include "mmu/vm/gpa_layout.h"

namespace twinroot::kvm {

// Checks image, program and their fit: kInvalidArgument. Starts nothing.
absl::Status CheckKvmMachine(const KvmMachineConfig& config, uint64_t memory_bytes);

// All pointers must outlive the machine.
absl::StatusOr<std::unique_ptr<vcpu::Machine>> MakeKvmMachine(const KvmMachineConfig& config,
                                                              const KvmSystem* system,
                                                              const mmu::GpaLayout& layout,
                                                              memory::GuestRam* ram,
                                                              vcpu::MachineClient* client);

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_KVM_MACHINE_H_
