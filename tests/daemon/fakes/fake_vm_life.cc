// The fake's states, as vm.proto says.
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/host/event_words.h"
#include "daemon/status_reason.h"
#include "tests/daemon/fakes/fake_vm.h"

namespace twinroot::fakes {

using host::IfVersion;
using host::VmState;

absl::Status FakeVm::CheckVersion(IfVersion if_version) const {
  if (!if_version.has_value() || *if_version == status_.version) return absl::OkStatus();
  return WithReason(absl::AbortedError("the VM has changed"), "ETAG_MISMATCH",
                    {{"vm", spec_.name}});
}

absl::Status FakeVm::Check(IfVersion if_version) const {
  std::lock_guard lock(mutex_);
  return CheckVersion(if_version);
}

host::VmSettings FakeVm::settings() const {
  std::lock_guard lock(mutex_);
  return settings_;
}

absl::Status FakeVm::Update(const host::VmSettings& settings, IfVersion if_version) {
  std::lock_guard lock(mutex_);
  if (absl::Status status = CheckVersion(if_version); !status.ok()) return status;
  settings_ = settings;
  ++status_.version;
  return absl::OkStatus();
}

absl::Status FakeVm::GoTo(VmState from, VmState to, IfVersion if_version) {
  if (absl::Status status = CheckVersion(if_version); !status.ok()) return status;
  if (status_.state != from) {
    return absl::FailedPreconditionError("this VM is in another state: look at it");
  }
  status_.state = to;
  ++status_.version;
  return absl::OkStatus();
}

absl::Status FakeVm::Start(IfVersion if_version) {
  {
    std::unique_lock lock(mutex_);
    ++starts_;
    released_.wait(lock, [this] { return !hold_start_; });
    absl::Status status = GoTo(VmState::kDefined, VmState::kRunning, if_version);
    if (!status.ok()) return status;
  }
  Announce(false);
  return absl::OkStatus();
}

void FakeVm::HoldStart() {
  std::lock_guard lock(mutex_);
  hold_start_ = true;
}

void FakeVm::ReleaseStart() {
  {
    std::lock_guard lock(mutex_);
    hold_start_ = false;
  }
  released_.notify_all();
}

uint64_t FakeVm::starts() const {
  std::lock_guard lock(mutex_);
  return starts_;
}

absl::Status FakeVm::Pause(IfVersion if_version) {
  {
    std::lock_guard lock(mutex_);
    if (status_.state == VmState::kPaused) return CheckVersion(if_version);
    absl::Status status = GoTo(VmState::kRunning, VmState::kPaused, if_version);
    if (!status.ok()) return status;
  }
  Announce(false);
  return absl::OkStatus();
}

absl::Status FakeVm::Resume(IfVersion if_version) {
  {
    std::lock_guard lock(mutex_);
    if (status_.state == VmState::kRunning) return CheckVersion(if_version);
    absl::Status status = GoTo(VmState::kPaused, VmState::kRunning, if_version);
    if (!status.ok()) return status;
  }
  Announce(false);
  return absl::OkStatus();
}

absl::Status FakeVm::Stop(vcpu::StopReason reason, IfVersion if_version) {
  {
    std::lock_guard lock(mutex_);
    if (absl::Status status = CheckVersion(if_version); !status.ok()) return status;
    if (status_.state == VmState::kStopped) return absl::OkStatus();
    status_.state = VmState::kStopped;
    ++status_.version;
    status_.stop_reason = host::WordOf(reason);
  }
  Announce(false);
  return absl::OkStatus();
}

}  // namespace twinroot::fakes
