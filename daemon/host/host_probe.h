// What this host can do for VMs: each thing is tried, not guessed.
#ifndef TWINROOT_DAEMON_HOST_HOST_PROBE_H_
#define TWINROOT_DAEMON_HOST_HOST_PROBE_H_

#include <memory>

#include "daemon/host/vm_impl.h"
#include "daemon/host/vm_registry.h"
#include "daemon/vcpu/kvm/kvm_system.h"

namespace twinroot::host {

struct HostProbe {
  HostCapabilities capabilities;        // nothing is usable until RunGuestProbes
  bool whole_leaves = false;            // kvm::ProbeWholeLeaves
  std::unique_ptr<kvm::KvmSystem> kvm;  // null where /dev/kvm or userfaultfd is missing
};

// Looks at /dev/kvm and userfaultfd.
HostProbe ProbeHost(kvm::KvmApi& api);

// Runs a guest of three instructions on kvm, and on kvm-native where KVM has that, through the
// engine, and says in `capabilities` whether it worked. Takes some milliseconds, four seconds at
// most.
void RunGuestProbes(const VmImpl::House& house, HostCapabilities& capabilities);

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_HOST_PROBE_H_
