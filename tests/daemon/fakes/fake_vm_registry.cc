#include "tests/daemon/fakes/fake_vm_registry.h"

#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/status_reason.h"

namespace twinroot::fakes {

FakeVmRegistry::FakeVmRegistry(events::Journal* journal, size_t max_vms)
    : journal_(journal),
      max_vms_(max_vms),
      capabilities_{.kvm_usable = false,
                    .native_reason = "the fake registry runs nothing",
                    .reason = "the fake registry runs nothing",
                    .checks = {{"/dev/kvm", host::HostCheck::Result::kFallback, "not asked"}}} {}

FakeVm& FakeVmRegistry::vm(const std::string& name) const {
  std::lock_guard lock(mutex_);
  const auto it = vms_.find(name);
  if (it == vms_.end()) std::abort();
  return *it->second;
}

bool FakeVmRegistry::shut_down() const {
  std::lock_guard lock(mutex_);
  return shut_down_;
}

absl::Status FakeVmRegistry::CheckRoom(const host::VmSpec& spec) const {
  if (shut_down_) return absl::UnavailableError("the daemon is stopping");
  if (vms_.contains(spec.name)) {
    return absl::AlreadyExistsError("the name is taken: choose another");
  }
  if (vms_.size() >= max_vms_) {
    return WithReason(absl::ResourceExhaustedError("too many VMs: delete some"), "TOO_MANY_VMS");
  }
  if (spec.backend == host::BackendKind::kKvm) {
    return WithReason(absl::FailedPreconditionError("no kvm on this host: use sim"),
                      "BACKEND_UNAVAILABLE");
  }
  return absl::OkStatus();
}

absl::StatusOr<host::VmSpec> FakeVmRegistry::Check(host::VmSpec spec) const {
  std::lock_guard lock(mutex_);
  if (absl::Status status = CheckRoom(spec); !status.ok()) return status;
  spec.backend = host::BackendKind::kSim;
  return spec;
}

absl::StatusOr<std::shared_ptr<host::Vm>> FakeVmRegistry::Create(host::VmSpec spec) {
  std::shared_ptr<FakeVm> vm;
  {
    std::lock_guard lock(mutex_);
    if (absl::Status status = CheckRoom(spec); !status.ok()) return status;
    vm = std::make_shared<FakeVm>(std::move(spec), host::BackendKind::kSim, journal_);
    vms_[vm->spec().name] = vm;
  }
  v1::Event event;
  event.set_vm(vm->spec().name);
  event.mutable_vm_state()->set_state(v1::Vm::STATE_DEFINED);
  journal_->Append(std::move(event));
  return std::shared_ptr<host::Vm>(vm);
}

absl::StatusOr<std::shared_ptr<host::Vm>> FakeVmRegistry::Get(const std::string& name) const {
  std::lock_guard lock(mutex_);
  const auto it = vms_.find(name);
  if (it == vms_.end()) return absl::NotFoundError(absl::StrCat("no VM ", name, ": list the VMs"));
  return std::shared_ptr<host::Vm>(it->second);
}

std::vector<std::shared_ptr<host::Vm>> FakeVmRegistry::List(const std::string& after,
                                                            size_t max) const {
  std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<host::Vm>> page;
  for (auto it = vms_.upper_bound(after); it != vms_.end() && page.size() < max; ++it) {
    page.push_back(it->second);
  }
  return page;
}

size_t FakeVmRegistry::size() const {
  std::lock_guard lock(mutex_);
  return vms_.size();
}

absl::Status FakeVmRegistry::Delete(const std::string& name, host::IfVersion if_version) {
  std::shared_ptr<FakeVm> vm;
  {
    std::lock_guard lock(mutex_);
    const auto it = vms_.find(name);
    if (it == vms_.end()) {
      return absl::NotFoundError(absl::StrCat("no VM ", name, ": list the VMs"));
    }
    if (absl::Status status = it->second->Check(if_version); !status.ok()) return status;
    vm = std::move(it->second);
    vms_.erase(it);
  }
  vm->Forget();
  return absl::OkStatus();
}

void FakeVmRegistry::Shutdown() {
  std::vector<std::shared_ptr<FakeVm>> vms;
  {
    std::lock_guard lock(mutex_);
    shut_down_ = true;
    for (const auto& [name, vm] : vms_) vms.push_back(vm);
  }
  for (const auto& vm : vms) {
    if (vm->status().state == host::VmState::kRunning) {
      (void)vm->Stop(vcpu::StopReason::kDaemonStopping);
    }
  }
}

}  // namespace twinroot::fakes
