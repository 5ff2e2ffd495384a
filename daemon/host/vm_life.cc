// The states of a VM: how it gets from one to the next, and who is told.
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "daemon/host/event_words.h"
#include "daemon/host/placement.h"
#include "daemon/host/vm_impl.h"
#include "daemon/log_vm.h"
#include "daemon/reasons.h"
#include "daemon/status_reason.h"

namespace twinroot::host {

using vcpu::StopReason;

VmStatus VmImpl::Stopped(StopReason reason, std::string message) {
  VmStatus status;
  status.state = VmState::kStopped;
  status.stop_reason = WordOf(reason);
  status.stop_message = std::move(message);
  return status;
}

VmStatus VmImpl::Exited(uint32_t code) {
  VmStatus status;
  status.state = VmState::kStopped;
  status.exit_code = code;
  return status;
}

void VmImpl::Publish(const v1::Event& event) {
  std::lock_guard lock(state_mutex_);
  if (!deleted_) house_.journal->Append(event);
}

void VmImpl::PublishDefined() {
  std::lock_guard lock(state_mutex_);
  // No VM of the same name has begun at the same nanosecond, or changed so often since.
  status_.version = static_cast<uint64_t>(absl::ToUnixNanos(create_time_));
  house_.journal->Append(StateEvent(spec_.name, status_));
}

void VmImpl::SetStatus(VmStatus next) {
  next.version = status_.version + 1;
  status_ = std::move(next);
  house_.journal->Append(StateEvent(spec_.name, status_));
}

VmStatus VmImpl::status() const {
  std::lock_guard lock(state_mutex_);
  return status_;
}

VmSettings VmImpl::settings() const {
  std::lock_guard lock(state_mutex_);
  return settings_;
}

absl::Status VmImpl::CheckVersion(IfVersion if_version) const {
  if (!if_version.has_value() || *if_version == status_.version) return absl::OkStatus();
  return WithReason(absl::AbortedError(absl::StrCat("VM ", spec_.name,
                                                    " has changed since its etag was given: look "
                                                    "at it again, then decide")),
                    reason::kEtagMismatch, {{"vm", spec_.name}});
}

absl::Status VmImpl::Check(IfVersion if_version) const {
  std::lock_guard lock(state_mutex_);
  return CheckVersion(if_version);
}

absl::Status VmImpl::WrongState(const std::string& what) const {
  return WithReason(absl::FailedPreconditionError(absl::StrCat("VM ", spec_.name, " ", what)),
                    reason::kWrongState, {{"vm", spec_.name}});
}

absl::Status VmImpl::CheckStays() const {
  if (!retired_) return absl::OkStatus();
  return WithReason(absl::UnavailableError(absl::StrCat(
                        "VM ", spec_.name, " takes no changes: it, or the daemon, is going away")),
                    reason::kDaemonStopping);
}

absl::Status VmImpl::Update(const VmSettings& settings, IfVersion if_version) {
  std::lock_guard lifecycle(lifecycle_mutex_);
  {
    std::lock_guard lock(state_mutex_);
    if (absl::Status status = CheckVersion(if_version); !status.ok()) return status;
    if (absl::Status status = CheckStays(); !status.ok()) return status;
    if (settings == settings_) return absl::OkStatus();
    if (settings.cpu_share != settings_.cpu_share) {
      if (absl::Status status = SetCpuShare(settings.cpu_share); !status.ok()) return status;
    }
    house_.journal->Append(UpdatedEvent(spec_.name, settings_, settings));
    settings_ = settings;
    ++status_.version;
  }
  desk_->SetPolicy(settings.policy);
  return absl::OkStatus();
}

absl::Status VmImpl::SetCpuShare(const CpuShare& share) {
  if (cpu_group_ != nullptr) return cpu_group_->Set(share);
  return CheckCpuShare(spec_, share, house_.cpu_groups);
}

absl::Status VmImpl::Start(IfVersion if_version) {
  std::lock_guard lifecycle(lifecycle_mutex_);
  {
    std::lock_guard lock(state_mutex_);
    if (absl::Status status = CheckVersion(if_version); !status.ok()) return status;
    if (absl::Status status = CheckStays(); !status.ok()) return status;
    if (status_.state == VmState::kPaused) return WrongState("is paused: resume it");
    if (status_.state != VmState::kDefined || outcome_.has_value()) {
      return WrongState(status_.state == VmState::kRunning
                            ? "runs already"
                            : "was started before and has stopped; a VM runs once: delete it and "
                              "create it again");
    }
    VmStatus running = status_;
    running.state = VmState::kRunning;
    // Before any vCPU runs, so that the event comes before everything the guest causes.
    SetStatus(std::move(running));
  }
  vcpus_running_ = spec_.vcpus;
  absl::Status started = machine_->Start();
  if (!started.ok()) {
    BeginStop(Stopped(StopReason::kBackendError, std::string(started.message())));
  }
  return started;
}

absl::Status VmImpl::CheckRuns() const {
  if (status_.state == VmState::kDefined) return WrongState("does not run; start it first");
  if (status_.state == VmState::kStopped || outcome_.has_value()) {
    return WrongState("has stopped; a VM runs once: delete it and create it again");
  }
  return absl::OkStatus();
}

absl::Status VmImpl::Pause(IfVersion if_version) {
  std::lock_guard lifecycle(lifecycle_mutex_);
  {
    std::lock_guard lock(state_mutex_);
    if (absl::Status status = CheckVersion(if_version); !status.ok()) return status;
    if (absl::Status status = CheckRuns(); !status.ok()) return status;
    if (status_.state == VmState::kPaused) return absl::OkStatus();
  }
  // A VM that stops meanwhile ends the wait.
  machine_->Pause();
  std::lock_guard lock(state_mutex_);
  if (absl::Status status = CheckRuns(); !status.ok()) return status;
  VmStatus paused = status_;
  paused.state = VmState::kPaused;
  // After everything that the vCPUs caused.
  SetStatus(std::move(paused));
  return absl::OkStatus();
}

absl::Status VmImpl::Resume(IfVersion if_version) {
  std::lock_guard lifecycle(lifecycle_mutex_);
  {
    std::lock_guard lock(state_mutex_);
    if (absl::Status status = CheckVersion(if_version); !status.ok()) return status;
    if (absl::Status status = CheckRuns(); !status.ok()) return status;
    if (status_.state == VmState::kRunning) return absl::OkStatus();
    VmStatus running = status_;
    running.state = VmState::kRunning;
    SetStatus(std::move(running));
  }
  machine_->Resume();
  return absl::OkStatus();
}

absl::Status VmImpl::CheckStops(IfVersion if_version) {
  std::lock_guard lifecycle(lifecycle_mutex_);  // not in the middle of a start
  std::lock_guard lock(state_mutex_);
  if (absl::Status status = CheckVersion(if_version); !status.ok()) return status;
  if (status_.state == VmState::kDefined) {
    return WrongState("does not run; start it, or delete it");
  }
  return absl::OkStatus();
}

void VmImpl::AnnounceStop() {
  if (CheckStops(std::nullopt).ok()) machine_->AnnounceStop();
}

absl::Status VmImpl::Stop(StopReason reason, IfVersion if_version) {
  if (absl::Status status = CheckStops(if_version); !status.ok()) return status;
  BeginStop(Stopped(reason, reason == StopReason::kDaemonStopping ? "the daemon is shutting down"
                                                                  : "a stop was requested"));
  std::unique_lock lock(state_mutex_);
  state_changed_.wait(lock, [this] { return status_.state == VmState::kStopped; });
  return absl::OkStatus();
}

void VmImpl::BeginStop(VmStatus outcome) {
  {
    std::lock_guard lock(state_mutex_);
    if (outcome_.has_value() || deleted_) return;
    outcome_ = std::move(outcome);
  }
  machine_->RequestStop();
  // Without an owner the destructor is under way, which joins the machine itself.
  if (auto self = weak_from_this().lock()) {
    house_.lanes->Post(this, [self = std::move(self)] { self->FinishStop(); });
  }
}

void VmImpl::FinishStop() {
  {
    std::lock_guard lifecycle(lifecycle_mutex_);  // a start that is under way ends first
    machine_->Join();
  }
  desk_->Close(ConversionDesk::Closing::kStopped);
  {
    std::lock_guard lock(state_mutex_);
    SetStatus(*outcome_);
  }
  if (house_.probe) {
    // No VM of the user's.
  } else if (outcome_->exit_code.has_value()) {
    LogVm(spdlog::level::info, spec_.name, "stopped, exit code {}", *outcome_->exit_code);
  } else {
    LogVm(spdlog::level::warn, {spec_.name, outcome_->stop_reason}, "stopped, {}: {}",
          outcome_->stop_reason, outcome_->stop_message);
  }
  state_changed_.notify_all();
  stop_waiters_.Call(absl::OkStatus());
  console_wakers_.Call();
}

absl::Status VmImpl::Retire(IfVersion if_version) {
  std::lock_guard lifecycle(lifecycle_mutex_);  // a start that is under way ends first
  std::lock_guard lock(state_mutex_);
  if (absl::Status status = CheckVersion(if_version); !status.ok()) return status;
  retired_ = true;
  return absl::OkStatus();
}

void VmImpl::Delete() {
  (void)Retire();
  (void)Stop(StopReason::kStopRequested);  // one that does not run needs none
  VmStatus last;
  {
    std::unique_lock lock(state_mutex_);
    // One that never ran may be ending all the same; what is told of that comes before the last
    // word.
    state_changed_.wait(
        lock, [this] { return !outcome_.has_value() || status_.state == VmState::kStopped; });
    deleted_ = true;
    last = status_;
  }
  desk_->Close(ConversionDesk::Closing::kDeleted);
  house_.journal->Append(DeletedEvent(spec_.name, last));
  stop_waiters_.Call(WithReason(
      absl::NotFoundError(absl::StrCat("VM ", spec_.name, " was deleted")), reason::kNoSuchVm));
  console_wakers_.Call();
}

std::unique_ptr<Vm::Waiter> VmImpl::OnStopped(std::function<void(absl::Status)> done) {
  // The state may change between the look and the registration; so register first, call once.
  auto once = [called = std::make_shared<std::atomic<bool>>(false),
               done = std::move(done)](const absl::Status& status) {
    if (!called->exchange(true)) done(status);
  };
  std::unique_ptr<Waiter> waiter = stop_waiters_.Add(once);
  bool stopped, deleted;
  {
    std::lock_guard lock(state_mutex_);
    stopped = status_.state == VmState::kStopped;
    deleted = deleted_;
  }
  if (deleted) {
    once(absl::NotFoundError(absl::StrCat("VM ", spec_.name, " was deleted")));
  } else if (stopped) {
    once(absl::OkStatus());
  }
  return waiter;
}

Vm::ConsoleChunk VmImpl::ReadConsole(uint64_t offset, size_t max) const {
  bool ended;
  {
    std::lock_guard lock(state_mutex_);  // before the bytes: then none can follow
    ended = status_.state == VmState::kStopped || deleted_;
  }
  ConsoleChunk chunk = console_.Read(offset, max);
  chunk.ended = ended && chunk.data.size() < max;
  return chunk;
}

absl::Status VmImpl::WriteConsole(std::string_view bytes) {
  {
    std::lock_guard lock(state_mutex_);
    if (absl::Status status = CheckRuns(); !status.ok()) return status;
  }
  absl::Status typed = machine_->Type(bytes);
  if (typed.ok()) return typed;
  return WithReason(
      absl::Status(typed.code(),
                   absl::StrCat("VM ", spec_.name, ": ", std::string(typed.message()))),
      absl::IsResourceExhausted(typed) ? reason::kConsoleInputFull : reason::kNoConsoleInput,
      {{"vm", spec_.name}});
}

std::unique_ptr<Vm::Waiter> VmImpl::OnConsole(std::function<void()> wake) {
  return console_wakers_.Add(std::move(wake));
}

}  // namespace twinroot::host
