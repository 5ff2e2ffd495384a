// What this host can do for VMs: each thing is tried, not guessed.
#ifndef TWINROOT_DAEMON_HOST_HOST_PROBE_H_
#define TWINROOT_DAEMON_HOST_HOST_PROBE_H_

#include <memory>

#include "daemon/host/vm_impl.h"
#include "daemon/host/vm_registry.h"
#include "daemon/vcpu/kvm/kvm_system.h"

namespace twinroot::host {

struct HostProbe {
  HostCapabilities capabilities;        // kvm_usable is false until RunGuestProbe
  bool whole_leaves = false;            // kvm::ProbeWholeLeaves
  std::unique_ptr<kvm::KvmSystem> kvm;  // null where /dev/kvm or userfaultfd is missing
};

// Looks at /dev/kvm and userfaultfd.
HostProbe ProbeHost();

// Runs a guest of three instructions on kvm, through the engine, and says in `capabilities`
// whether that worked. Takes some milliseconds, two seconds at most.
void RunGuestProbe(const VmImpl::House& house, HostCapabilities& capabilities);

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_HOST_PROBE_H_
