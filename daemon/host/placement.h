// Whether a VM can have the processors and the processor time that it asks for. Thread-safe.
#ifndef TWINROOT_DAEMON_HOST_PLACEMENT_H_
#define TWINROOT_DAEMON_HOST_PLACEMENT_H_

#include "absl/status/status.h"
#include "daemon/host/cpu_groups.h"
#include "daemon/host/vm.h"

namespace twinroot::host {

// Errors as Placement in vm.proto says. `groups` may be null: there are none.
absl::Status CheckPlacement(const VmSpec& spec, const CpuGroupsOrWhyNot* groups);

// The part of it that may change later.
absl::Status CheckCpuShare(const VmSpec& spec, const CpuShare& share,
                           const CpuGroupsOrWhyNot* groups);

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_PLACEMENT_H_
