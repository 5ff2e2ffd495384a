// /dev/kvm as this daemon uses it: what it can do, found once. Immutable; thread-safe.
#ifndef TWINROOT_DAEMON_VCPU_KVM_KVM_SYSTEM_H_
#define TWINROOT_DAEMON_VCPU_KVM_KVM_SYSTEM_H_

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "daemon/vcpu/kvm/kvm_abi.h"
#include "daemon/vcpu/kvm/kvm_api.h"

namespace twinroot::kvm {

class KvmSystem {
 public:
  // kFailedPrecondition says what is missing and what to do.
  static absl::StatusOr<std::unique_ptr<KvmSystem>> Open(KvmApi& api = HostKvm());

  const KvmFd& fd() const { return fd_; }
  size_t vcpu_run_bytes() const { return vcpu_run_bytes_; }
  const Cpuid2& cpuid() const { return cpuid_; }
  int guest_maxphyaddr() const { return guest_maxphyaddr_; }
  bool sync_regs() const { return sync_regs_; }
  bool map_gpa_exits() const { return map_gpa_exits_; }  // KVM forwards hypercall 12
  int max_vcpus() const { return max_vcpus_; }
  // Why this host makes no VMs with private memory of their own; empty: it does.
  const std::string& native_missing() const { return native_missing_; }
  bool prefaults() const { return prefaults_; }  // KVM_PRE_FAULT_MEMORY

 private:
  KvmSystem() = default;
  KvmFd fd_;
  size_t vcpu_run_bytes_ = 0;
  Cpuid2 cpuid_;
  int guest_maxphyaddr_ = 36;
  bool sync_regs_ = false;
  bool map_gpa_exits_ = false;
  int max_vcpus_ = 1;
  std::string native_missing_;
  bool prefaults_ = false;
};

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_KVM_SYSTEM_H_
