// What a VM is to boot, and the plan that is made of it: its image taken apart, and checked to fit
// into the VM's memory together with what goes with it. Pure; thread-safe.
#ifndef TWINROOT_DAEMON_VCPU_KVM_BOOT_PLAN_H_
#define TWINROOT_DAEMON_VCPU_KVM_BOOT_PLAN_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/vcpu/kvm/guest_image.h"

namespace twinroot::kvm {

struct KvmMachineConfig {
  uint32_t vcpus = 1;
  std::shared_ptr<const std::string> image;   // null: the interpreter of access programs
  std::shared_ptr<const std::string> initrd;  // of a kernel, or null
  std::string program;                        // blob, or empty
  std::string cmdline;
  int cpl = 3;
  bool native = false;  // private memory that the kernel keeps: KvmSystem::native_missing
  std::vector<uint32_t> cpus = {};  // of the host, for the vCPUs' threads; empty: any
  // On each vCPU's thread, before it runs; an error stops the VM. Null: nothing.
  std::function<absl::Status()> vcpu_thread_starts = nullptr;
  bool tells_registers = false;  // in messages, of a vCPU that stops the VM
};

struct BootPlan {
  GuestImage image;
  std::string_view program;  // blob, or empty; not for kernels
  std::string_view initrd;   // or empty; for kernels only
  std::string_view cmdline;
  uint32_t vcpus = 1;
  int shared_bit = 47;
  int cpl = 3;  // 3 or 0; kernels start in 0
  bool native = false;
};

// kInvalidArgument says what is wrong with which part. The plan looks into the config's bytes.
absl::StatusOr<BootPlan> PlanBoot(const KvmMachineConfig& config, uint64_t memory_bytes,
                                  int shared_bit);

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_BOOT_PLAN_H_
