#include "daemon/host/host_probe.h"

#include <fstream>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "daemon/host/wait_stopped.h"
#include "daemon/vcpu/kvm/projection.h"
#include "daemon/vcpu/kvm/userfault.h"

namespace twinroot::host {
namespace {

using Result = HostCheck::Result;

constexpr absl::Duration kProbeTimeout = absl::Seconds(10);
constexpr uint32_t kProbeExitCode = 42;
constexpr int kUsualMappings = 65530;  // the kernel's default

// mov al, 42; out 0xf4, al; hlt
constexpr char kProbeGuest[] = "\xb0\x2a\xe6\xf4\xf4";

void Add(HostCapabilities& capabilities, std::string name, Result result, std::string detail) {
  capabilities.checks.push_back({std::move(name), result, std::move(detail)});
}

void AddProjectionChecks(const kvm::Userfault& userfault, HostProbe& probe) {
  const bool writes = userfault.can_watch_writes();
  Add(probe.capabilities, "userfaultfd: write protection of shared memory",
      writes ? Result::kOk : Result::kFallback,
      writes ? "logs writes on kvm" : "no dirty log on kvm: Linux 6.4 or newer is needed");
  const absl::Status whole = kvm::ProbeWholeLeaves();
  probe.whole_leaves = whole.ok();
  Add(probe.capabilities, "kvm: pages of 2 MiB", whole.ok() ? Result::kOk : Result::kFallback,
      whole.ok() ? "become one entry of the host's tables soon after they are mapped"
                 : absl::StrCat("stay 512 entries of the host's tables: ", whole.message()));
  // Windows are never split, so this bounds how many VMs there are and nothing else.
  constexpr int kMappingsOfAVm = 15;
  int most = 0;
  std::ifstream("/proc/sys/vm/max_map_count") >> most;
  Add(probe.capabilities, "mappings of a process (vm.max_map_count)",
      most >= kUsualMappings ? Result::kOk : Result::kFallback,
      absl::StrCat(most, ": some ", most / kMappingsOfAVm, " VMs of two vCPUs on kvm"));
  Add(probe.capabilities, "kvm: pages of 1 GiB", Result::kFallback,
      "shared memory has none but in hugetlbfs, whose pages cannot be converted in parts");
}

absl::StatusOr<absl::Duration> RunGuest(const VmImpl::House& house, BackendKind backend) {
  events::Journal unseen(16);  // the probe is no VM of the user's
  VmImpl::House own_house = house;
  own_house.journal = &unseen;
  own_house.probe = true;
  VmSpec spec;
  spec.name = "host-probe";
  spec.memory_bytes = uint64_t{2} << 20;
  spec.vcpus = 1;
  spec.image = std::make_shared<const std::string>(kProbeGuest, sizeof kProbeGuest - 1);
  spec.backend = backend;
  const absl::Time begin = absl::Now();
  absl::StatusOr<std::shared_ptr<VmImpl>> vm = VmImpl::Create(std::move(spec), own_house);
  if (!vm.ok()) return vm.status();
  absl::Status failure = (*vm)->Start();
  if (failure.ok() && !WaitStopped(**vm, kProbeTimeout)) {
    failure = absl::DeadlineExceededError(absl::StrCat(
        "a guest of three instructions did not end in ", absl::FormatDuration(kProbeTimeout)));
  }
  (void)(*vm)->Stop(vcpu::StopReason::kStopRequested);
  const VmStatus status = (*vm)->status();
  if (failure.ok() && status.exit_code != kProbeExitCode) {
    failure = absl::InternalError(absl::StrCat("a guest of three instructions ended with ",
                                               status.stop_reason, ": ", status.stop_message));
  }
  // Stopped while it was loaded: it says why, the start only that.
  if (absl::IsCancelled(failure)) failure = absl::InternalError(status.stop_message);
  if (!failure.ok()) return failure;
  return absl::Now() - begin;
}

}  // namespace

HostProbe ProbeHost(kvm::KvmApi& api) {
  HostProbe probe;
  HostCapabilities& capabilities = probe.capabilities;
  absl::StatusOr<std::unique_ptr<kvm::KvmSystem>> kvm = kvm::KvmSystem::Open(api);
  const absl::StatusOr<kvm::Userfault> userfault = kvm::Userfault::Open();
  if (kvm.ok()) {
    Add(capabilities, "/dev/kvm", Result::kOk,
        absl::StrCat("guest physical addresses have ", (*kvm)->guest_maxphyaddr(), " bits"));
    Add(capabilities, "kvm: registers in the run area",
        (*kvm)->sync_regs() ? Result::kOk : Result::kFallback,
        (*kvm)->sync_regs() ? "used for hypercalls" : "hypercalls cost two more system calls");
    Add(capabilities, "kvm: forwards the MapGPA hypercall",
        (*kvm)->map_gpa_exits() ? Result::kOk : Result::kFallback,
        (*kvm)->map_gpa_exits() ? "guests may use vmcall, where it exits at all, or port 0xF8"
                                : "guests use port 0xF8");
  } else {
    Add(capabilities, "/dev/kvm", Result::kMissing, std::string(kvm.status().message()));
  }
  Add(capabilities, "userfaultfd: missing and minor faults on shared memory",
      userfault.ok() ? Result::kOk : Result::kMissing,
      userfault.ok() ? "projects the engine's tables" : std::string(userfault.status().message()));
  if (userfault.ok()) AddProjectionChecks(*userfault, probe);
  Add(capabilities, "execute-only aliases on kvm", Result::kFallback,
      "a projection cannot tell a fetch from a read; sim has them");
  if (kvm.ok() && userfault.ok()) {
    probe.kvm = *std::move(kvm);
  } else {
    capabilities.reason =
        std::string(kvm.ok() ? userfault.status().message() : kvm.status().message());
    capabilities.native_reason = capabilities.reason;
  }
  return probe;
}

void RunGuestProbes(const VmImpl::House& house, HostCapabilities& capabilities) {
  const auto say = [&](const char* name, Result missing, const absl::StatusOr<absl::Duration>& took,
                       std::string& reason, const char* good) {
    reason = took.ok() ? good : std::string(took.status().message());
    Add(capabilities, name, took.ok() ? Result::kOk : missing,
        took.ok() ? absl::StrCat("in ", absl::ToInt64Microseconds(*took), " us") : reason);
    return took.ok();
  };
  capabilities.kvm_usable =
      say("kvm: a probe guest runs", Result::kMissing, RunGuest(house, BackendKind::kKvm),
          capabilities.reason, "a probe guest ran on /dev/kvm through the engine's tables");
  const std::string& missing = house.kvm->native_missing();
  capabilities.native_usable =
      say("kvm-native: a probe guest runs", Result::kFallback,
          missing.empty() ? RunGuest(house, BackendKind::kKvmNative)
                          : absl::FailedPreconditionError(missing),
          capabilities.native_reason, "a probe guest ran in private memory that the kernel keeps");
}

}  // namespace twinroot::host
