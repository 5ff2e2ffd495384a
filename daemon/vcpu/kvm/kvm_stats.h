// A number that KVM keeps of a VM or of a vCPU, found by name (KVM_GET_STATS_FD). Immutable after
// Open; thread-safe, and never waits for the vCPU.
#ifndef TWINROOT_DAEMON_VCPU_KVM_KVM_STATS_H_
#define TWINROOT_DAEMON_VCPU_KVM_KVM_STATS_H_

#include <cstdint>
#include <string_view>

#include "daemon/vcpu/kvm/kvm_api.h"

namespace twinroot::kvm {

class KvmStat {
 public:
  // Of a kernel without statistics (before Linux 5.14), or without this one, it reads 0.
  static KvmStat Open(const KvmFd& of, std::string_view name);

  bool kept() const { return fd_.valid(); }
  uint64_t Read() const;

 private:
  KvmFd fd_;
  uint64_t offset_ = 0;
};

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_KVM_STATS_H_
