#include "daemon/host/vm_registry.h"

#include <sched.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/host/host_probe.h"
#include "daemon/host/task_lanes.h"
#include "daemon/host/task_thread.h"
#include "daemon/host/vm_impl.h"
#include "daemon/memory/hpa_space.h"
#include "daemon/reasons.h"
#include "daemon/status_reason.h"
#include "daemon/vcpu/kvm/kvm_machine.h"
#include "daemon/vcpu/kvm/kvm_system.h"
#include "daemon/vcpu/program/decoder.h"
#include "mmu/tables/epoch.h"

namespace twinroot::host {
namespace {

constexpr uint64_t kMemoryGranule = uint64_t{2} << 20;
constexpr int kSharedBitOfSim = 47;

absl::Status Bad(const std::string& field, const std::string& what) {
  return WithReason(absl::InvalidArgumentError(what), reason::kInvalidField, {{"field", field}});
}

absl::Status CheckSizes(const VmSpec& spec) {
  if (spec.memory_bytes == 0 || spec.memory_bytes % kMemoryGranule != 0 ||
      spec.memory_bytes > kMaxMemoryBytes) {
    return Bad("vm.memory_bytes",
               absl::StrCat("memory must be a multiple of 2 MiB from 2 MiB to 64 GiB, not ",
                            spec.memory_bytes, " bytes"));
  }
  if (spec.vcpus == 0 || spec.vcpus > kMaxVcpus) {
    return Bad("vm.vcpus",
               absl::StrCat("vcpus must be from 1 to ", kMaxVcpus, ", not ", spec.vcpus));
  }
  return absl::OkStatus();
}

// Processors that the daemon may use now.
absl::Status CheckPlacement(const VmSpec& spec) {
  if (spec.cpus.empty()) return absl::OkStatus();
  if (spec.backend == BackendKind::kSim) {
    return WithReason(absl::FailedPreconditionError(
                          absl::StrCat("VM ", spec.name,
                                       " asks for a placement, which sim does not give its "
                                       "software processors: leave it out")),
                      reason::kNotOnThisBackend, {{"vm", spec.name}});
  }
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
    return absl::InternalError("the host does not say which processors the daemon may use");
  }
  for (const uint32_t cpu : spec.cpus) {
    if (cpu < CPU_SETSIZE && CPU_ISSET(cpu, &allowed)) continue;
    return Bad("vm.placement.cpus",
               absl::StrCat("the daemon may not use processor ", cpu, ": name some of the ",
                            CPU_COUNT(&allowed), " that it may (taskset -p its pid shows them)"));
  }
  return absl::OkStatus();
}

absl::Status NoSuchVm(const std::string& name) {
  return WithReason(absl::NotFoundError(absl::StrCat("there is no VM named ", name,
                                                     "; `hvctl vm list` shows those there are")),
                    reason::kNoSuchVm, {{"vm", name}});
}

class Registry : public VmRegistry {
 public:
  Registry(const RegistryOptions& options, events::Journal* journal)
      : options_(options),
        probe_(ProbeHost(options.kvm != nullptr ? *options.kvm : kvm::HostKvm())) {
    house_.hpa_space = &hpa_space_;
    house_.journal = journal;
    house_.clock = &clock_;
    house_.lanes = &lanes_;
    house_.kvm = probe_.kvm.get();
    house_.whole_leaves = probe_.whole_leaves;
  }
  ~Registry() override { Shutdown(); }

  // Lets the chosen backend prove itself.
  absl::Status Open();

  absl::StatusOr<std::shared_ptr<Vm>> Create(VmSpec spec) override;
  absl::StatusOr<VmSpec> Check(VmSpec spec) const override;
  absl::StatusOr<std::shared_ptr<Vm>> Get(const std::string& name) const override;
  std::vector<std::shared_ptr<Vm>> List(const std::string& after, size_t max) const override;
  size_t size() const override;
  absl::Status Delete(const std::string& name, IfVersion if_version = std::nullopt) override;
  void Shutdown() override;
  void AskProgress(std::function<void()> done) override;
  const HostCapabilities& capabilities() const override { return probe_.capabilities; }
  BackendKind default_backend() const override { return default_backend_; }
  int shared_bit() const override {
    return default_backend_ != BackendKind::kSim
               ? std::min(probe_.kvm->guest_maxphyaddr(), kSharedBitOfSim + 1) - 1
               : kSharedBitOfSim;
  }

 private:
  absl::Status ChooseBackend(VmSpec& spec) const;
  // Not OK: this host has no such backend.
  absl::Status CheckBackend(BackendKind backend, const std::string& instead) const;
  absl::Status CheckRoom(const std::string& name) const;  // holds mutex_

  const RegistryOptions options_;
  HostProbe probe_;
  BackendKind default_backend_ = BackendKind::kSim;

  memory::HpaSpace hpa_space_;
  TaskLanes lanes_;
  TaskThread clock_;
  VmImpl::House house_;

  mutable std::mutex mutex_;
  bool shutting_down_ = false;
  std::map<std::string, std::shared_ptr<VmImpl>> vms_;  // null: being created
};

absl::Status Registry::Open() {
  HostCapabilities& capabilities = probe_.capabilities;
  if (house_.kvm != nullptr) RunGuestProbes(house_, capabilities);
  house_.exits = options_.exits;  // the probes' own do not count
  if (absl::Status status =
          CheckBackend(options_.default_backend, "start with --backend sim, or auto");
      !status.ok()) {
    return status;
  }
  if (options_.default_backend == BackendKind::kAuto) {
    default_backend_ = capabilities.kvm_usable ? BackendKind::kKvm : BackendKind::kSim;
  } else {
    default_backend_ = options_.default_backend;
    if (default_backend_ == BackendKind::kSim) capabilities.reason = "chosen by --backend sim";
    if (default_backend_ == BackendKind::kKvmNative) {
      capabilities.reason = capabilities.native_reason;
    }
  }
  return absl::OkStatus();
}

absl::Status Registry::CheckBackend(BackendKind backend, const std::string& instead) const {
  const HostCapabilities& can = probe_.capabilities;
  const bool native = backend == BackendKind::kKvmNative;
  if (native ? can.native_usable : backend != BackendKind::kKvm || can.kvm_usable) {
    return absl::OkStatus();
  }
  return WithReason(absl::FailedPreconditionError(absl::StrCat(
                        "backend ", native ? "kvm-native" : "kvm", " cannot work on this host: ",
                        native ? can.native_reason : can.reason, "; ", instead)),
                    reason::kBackendUnavailable);
}

// What only a processor of our own has.
absl::Status CheckSimOnly(const VmSpec& spec) {
  const auto refuse = [&](const char* what) {
    return WithReason(absl::FailedPreconditionError(absl::StrCat("VM ", spec.name, what)),
                      reason::kNotOnThisBackend, {{"vm", spec.name}});
  };
  if (spec.mmu == mmu::MmuMode::kShadow) {
    return refuse(
        " asks for mmu shadow, but on kvm the processor walks the guest's own tables: create it "
        "with backend sim, or with mmu tdp");
  }
  if (spec.program.empty()) return absl::OkStatus();
  const auto program = program::Decode(spec.program, spec.vcpus);
  if (!program.ok() || !program::NeedsSim(*program)) return absl::OkStatus();
  return refuse(
      " has a program that sets paging registers or catches page faults, and on kvm the "
      "interpreter has tables of its own: create it with backend sim, or leave those steps out");
}

absl::Status Registry::ChooseBackend(VmSpec& spec) const {
  if (spec.backend == BackendKind::kAuto) spec.backend = default_backend_;
  if (absl::Status status = CheckBackend(spec.backend, "use an access program on sim");
      !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckPlacement(spec); !status.ok()) return status;
  if (spec.backend != BackendKind::kSim) {
    if (spec.image == nullptr && spec.program.empty()) {
      return Bad("vm.image", "a VM on kvm needs an image or an access program");
    }
    if (spec.nx_huge_pages) {
      return WithReason(absl::FailedPreconditionError(
                            absl::StrCat("VM ", spec.name,
                                         " asks for nx_huge_pages, which kvm cannot enforce "
                                         "here: create it with backend sim, or leave it out")),
                        reason::kNotOnThisBackend, {{"vm", spec.name}});
    }
    if (absl::Status status = CheckSimOnly(spec); !status.ok()) return status;
    return kvm::CheckKvmMachine(KvmConfigOf(spec), spec.memory_bytes);
  }
  if (spec.image == nullptr && spec.program.empty()) {
    return Bad("vm.program", "a VM on sim needs an access program");
  }
  if (spec.initrd != nullptr) {
    return Bad("vm.boot.initrd", "sim boots no kernel: leave the initrd out, or use kvm");
  }
  if (spec.program.empty()) {
    return WithReason(
        absl::FailedPreconditionError(
            "an image cannot run on sim, which executes access programs only; add a program "
            "(hvctl vm create --program FILE), or use a host where kvm works (hvctl host show)"),
        reason::kImageNeedsKvm);
  }
  return absl::OkStatus();
}

absl::Status Registry::CheckRoom(const std::string& name) const {
  if (shutting_down_) {
    return WithReason(absl::UnavailableError("the daemon is shutting down"),
                      reason::kDaemonStopping);
  }
  if (vms_.contains(name)) {
    return WithReason(absl::AlreadyExistsError(absl::StrCat(
                          "a VM named ", name, " exists; delete it, or take another name")),
                      reason::kVmExists, {{"vm", name}});
  }
  if (vms_.size() >= options_.max_vms) {
    return WithReason(
        absl::ResourceExhaustedError(absl::StrCat("this daemon runs at most ", options_.max_vms,
                                                  " VMs; delete some that are not needed")),
        reason::kTooManyVms);
  }
  return absl::OkStatus();
}

absl::StatusOr<VmSpec> Registry::Check(VmSpec spec) const {
  if (absl::Status status = CheckSizes(spec); !status.ok()) return status;
  if (absl::Status status = ChooseBackend(spec); !status.ok()) return status;
  std::lock_guard lock(mutex_);
  if (absl::Status status = CheckRoom(spec.name); !status.ok()) return status;
  return spec;
}

absl::StatusOr<std::shared_ptr<Vm>> Registry::Create(VmSpec spec) {
  if (absl::Status status = CheckSizes(spec); !status.ok()) return status;
  if (absl::Status status = ChooseBackend(spec); !status.ok()) return status;
  const std::string name = spec.name;
  {
    std::lock_guard lock(mutex_);
    if (absl::Status status = CheckRoom(name); !status.ok()) return status;
    vms_.emplace(name, nullptr);  // the name is taken from now on
  }
  absl::StatusOr<std::shared_ptr<VmImpl>> vm = VmImpl::Create(std::move(spec), house_);
  std::lock_guard lock(mutex_);
  if (!vm.ok() || shutting_down_) {
    vms_.erase(name);
    if (!vm.ok()) return vm.status();
    return WithReason(absl::UnavailableError("the daemon is shutting down"),
                      reason::kDaemonStopping);
  }
  vms_[name] = *vm;
  (*vm)->PublishDefined();
  return *std::move(vm);
}

absl::StatusOr<std::shared_ptr<Vm>> Registry::Get(const std::string& name) const {
  std::lock_guard lock(mutex_);
  const auto it = vms_.find(name);
  if (it == vms_.end() || it->second == nullptr) return NoSuchVm(name);
  return it->second;
}

std::vector<std::shared_ptr<Vm>> Registry::List(const std::string& after, size_t max) const {
  std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<Vm>> vms;
  for (auto it = vms_.upper_bound(after); it != vms_.end() && vms.size() < max; ++it) {
    if (it->second != nullptr) vms.push_back(it->second);
  }
  return vms;
}

size_t Registry::size() const {
  std::lock_guard lock(mutex_);
  return vms_.size();
}

absl::Status Registry::Delete(const std::string& name, IfVersion if_version) {
  std::shared_ptr<VmImpl> vm;
  {
    std::lock_guard lock(mutex_);
    const auto it = vms_.find(name);
    if (it == vms_.end() || it->second == nullptr) return NoSuchVm(name);
    vm = it->second;
  }
  if (absl::Status status = vm->Retire(if_version); !status.ok()) return status;
  {
    std::lock_guard lock(mutex_);
    const auto it = vms_.find(name);
    if (it == vms_.end() || it->second != vm) return NoSuchVm(name);  // another call was faster
    // Nobody finds it any more; the name stays taken until the machine has ended.
    it->second = nullptr;
  }
  vm->Delete();
  std::lock_guard lock(mutex_);
  vms_.erase(name);
  return absl::OkStatus();
}

void Registry::Shutdown() {
  std::vector<std::shared_ptr<VmImpl>> vms;
  {
    std::lock_guard lock(mutex_);
    shutting_down_ = true;
    for (const auto& [name, vm] : vms_) {
      if (vm != nullptr) vms.push_back(vm);
    }
  }
  for (const std::shared_ptr<VmImpl>& vm : vms) (void)vm->Retire();
  // Guests that run on would keep processors from those that stop.
  for (const std::shared_ptr<VmImpl>& vm : vms) vm->AnnounceStop();
  // One that does not run needs no stop.
  for (const std::shared_ptr<VmImpl>& vm : vms) (void)vm->Stop(vcpu::StopReason::kDaemonStopping);
}

void Registry::AskProgress(std::function<void()> done) {
  clock_.Post([this, done = std::move(done)] {
    lanes_.Post(this, [done] {
      mmu::SynchronizeEpoch();
      done();
    });
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<VmRegistry>> MakeVmRegistry(const RegistryOptions& options,
                                                           events::Journal* journal) {
  auto registry = std::make_unique<Registry>(options, journal);
  if (absl::Status status = registry->Open(); !status.ok()) return status;
  return registry;
}

}  // namespace twinroot::host
