#include "daemon/rpc/find_vm.h"

#include <utility>

#include "daemon/reasons.h"
#include "daemon/rpc/checks.h"
#include "daemon/rpc/status.h"

namespace twinroot::rpc {
namespace {

absl::StatusOr<std::shared_ptr<host::Vm>> Find(const host::VmRegistry& registry,
                                               const std::string& name) {
  auto vm = registry.Get(name);
  if (!vm.ok()) return AboutVm(vm.status(), name);
  return vm;
}

}  // namespace

absl::StatusOr<std::shared_ptr<host::Vm>> FindByResourceName(const host::VmRegistry& registry,
                                                             const std::string& field,
                                                             const std::string& resource_name) {
  auto name = BareNameOf(field, resource_name);
  if (!name.ok()) return name.status();
  return Find(registry, *name);
}

absl::StatusOr<std::shared_ptr<host::Vm>> FindByBareName(const host::VmRegistry& registry,
                                                         const std::string& field,
                                                         const std::string& name) {
  if (absl::Status status = CheckBareName(field, name); !status.ok()) return status;
  return Find(registry, name);
}

absl::Status AboutVm(absl::Status status, const std::string& name) {
  status =
      DefaultReason(std::move(status), absl::StatusCode::kNotFound, reason::kNoSuchVm, "vm", name);
  status = DefaultReason(std::move(status), absl::StatusCode::kAlreadyExists, reason::kVmExists,
                         "vm", name);
  status = DefaultReason(std::move(status), absl::StatusCode::kFailedPrecondition,
                         reason::kWrongState, "vm", name);
  return DefaultReason(std::move(status), absl::StatusCode::kUnavailable, reason::kDaemonStopping);
}

absl::Status AboutMemory(absl::Status status, const std::string& name, const std::string& field) {
  status = DefaultReason(std::move(status), absl::StatusCode::kInvalidArgument,
                         reason::kInvalidRange, "field", field);
  return AboutVm(std::move(status), name);
}

}  // namespace twinroot::rpc
