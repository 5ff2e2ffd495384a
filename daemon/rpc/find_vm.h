// How every call finds its VM, and the reasons that errors of a VM carry by default.
// Thread-safe.
#ifndef TWINROOT_DAEMON_RPC_FIND_VM_H_
#define TWINROOT_DAEMON_RPC_FIND_VM_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "daemon/host/vm_registry.h"

namespace twinroot::rpc {

// By resource name ("vms/demo") or bare name ("demo") out of the request's `field`.
absl::StatusOr<std::shared_ptr<host::Vm>> FindByResourceName(const host::VmRegistry& registry,
                                                             const std::string& field,
                                                             const std::string& resource_name);
absl::StatusOr<std::shared_ptr<host::Vm>> FindByBareName(const host::VmRegistry& registry,
                                                         const std::string& field,
                                                         const std::string& name);

// `status` of a call about the VM `name`, with the reason that its code means there unless a lower
// room gave one.
absl::Status AboutVm(absl::Status status, const std::string& name);
// The same for a call that named ranges of memory, which only the VM can say are wrong.
// `field`: where the request has them.
absl::Status AboutMemory(absl::Status status, const std::string& name,
                         const std::string& field = "ranges");

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_FIND_VM_H_
