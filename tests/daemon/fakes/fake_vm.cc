#include "tests/daemon/fakes/fake_vm.h"

#include <algorithm>
#include <list>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "daemon/host/event_words.h"
#include "daemon/reasons.h"
#include "daemon/status_reason.h"

namespace twinroot::fakes {
namespace {

constexpr uint64_t kPage = mmu::kPageSize;

}  // namespace

// Shared with the waiters, which may outlive the VM.
struct FakeVm::StopWaiters {
  struct Entry {
    std::mutex mutex;
    std::function<void(absl::Status)> done;
  };
  std::mutex mutex;
  std::list<std::shared_ptr<Entry>> entries;
};

class FakeVm::StopWaiter final : public host::Vm::Waiter {
 public:
  StopWaiter(std::shared_ptr<StopWaiters> all, std::shared_ptr<StopWaiters::Entry> entry)
      : all_(std::move(all)), entry_(std::move(entry)) {}
  ~StopWaiter() override {
    {
      std::lock_guard lock(all_->mutex);
      all_->entries.remove(entry_);
    }
    std::lock_guard lock(entry_->mutex);
    entry_->done = nullptr;
  }

 private:
  const std::shared_ptr<StopWaiters> all_;
  const std::shared_ptr<StopWaiters::Entry> entry_;
};

class FakeVm::ConsoleWaiter final : public host::Vm::Waiter {
 public:
  explicit ConsoleWaiter(std::unique_ptr<CallbackHandle> handle) : handle_(std::move(handle)) {}

 private:
  std::unique_ptr<CallbackHandle> handle_;
};

FakeVm::FakeVm(host::VmSpec spec, host::BackendKind backend, events::Journal* journal)
    : spec_(std::move(spec)),
      backend_(backend),
      create_time_(absl::Now()),
      journal_(journal),
      stop_waiters_(std::make_shared<StopWaiters>()),
      settings_(spec_),
      shared_(spec_.memory_bytes / kPage, false),
      dirty_(spec_.memory_bytes / kPage, false) {
  status_.version = static_cast<uint64_t>(absl::ToUnixNanos(create_time_));
}

void FakeVm::Announce(bool deleted) {
  v1::Event event;
  event.set_vm(spec_.name);
  const host::VmStatus now = status();
  v1::VmStateChange* change = event.mutable_vm_state();
  change->set_state(host::WordOf(now.state));
  if (now.exit_code.has_value()) change->set_exit_code(*now.exit_code);
  change->set_stop_reason(now.stop_reason);
  change->set_deleted(deleted);
  journal_->Append(std::move(event));
  if (now.state == host::VmState::kStopped) EndWaits(absl::OkStatus());
}

void FakeVm::EndWaits(const absl::Status& status) {
  std::list<std::shared_ptr<StopWaiters::Entry>> entries;
  {
    std::lock_guard lock(stop_waiters_->mutex);
    entries.swap(stop_waiters_->entries);
  }
  for (const auto& entry : entries) {
    std::lock_guard lock(entry->mutex);
    if (auto done = std::exchange(entry->done, nullptr)) done(status);
  }
  console_watchers_.Call();
}

void FakeVm::Say(const std::string& text) {
  {
    std::lock_guard lock(mutex_);
    console_ += text;
  }
  console_watchers_.Call();
}

void FakeVm::ExitWith(uint32_t code) {
  {
    std::lock_guard lock(mutex_);
    status_.state = host::VmState::kStopped;
    status_.exit_code = code;
    ++status_.version;
  }
  Announce(false);
}

uint64_t FakeVm::AskToConvert(uint64_t gpa, uint64_t size, host::Direction direction) {
  std::lock_guard lock(mutex_);
  host::PendingConversion pending;
  pending.id = next_id_++;
  pending.gpa = gpa;
  pending.size = size;
  pending.direction = direction;
  pending.cause = host::Cause::kExplicit;
  pending.deadline = absl::Now() + spec_.policy.decision_timeout;
  pending_[pending.id] = pending;
  return pending.id;
}

void FakeVm::HoldConversions() {
  std::lock_guard lock(mutex_);
  hold_ = true;
}

void FakeVm::ReleaseConversions() {
  {
    std::lock_guard lock(mutex_);
    hold_ = false;
  }
  released_.notify_all();
}

void FakeVm::FailNextConvert(absl::Status status) {
  std::lock_guard lock(mutex_);
  next_convert_ = std::move(status);
}

void FakeVm::SetCounters(const host::VmCounters& counters) {
  std::lock_guard lock(mutex_);
  counters_ = counters;
}

size_t FakeVm::waiters() const {
  std::lock_guard lock(stop_waiters_->mutex);
  return stop_waiters_->entries.size();
}

uint64_t FakeVm::converts() const {
  std::lock_guard lock(mutex_);
  return converts_;
}

void FakeVm::Forget() {
  {
    std::lock_guard lock(mutex_);
    status_.state = host::VmState::kStopped;
  }
  EndWaits(absl::NotFoundError(absl::StrCat("VM ", spec_.name, " was deleted")));
  Announce(true);
}

host::VmStatus FakeVm::status() const {
  std::lock_guard lock(mutex_);
  return status_;
}

std::unique_ptr<host::Vm::Waiter> FakeVm::OnStopped(std::function<void(absl::Status)> done) {
  auto entry = std::make_shared<StopWaiters::Entry>();
  bool stopped = false;
  {
    std::lock_guard lock(mutex_);
    stopped = status_.state == host::VmState::kStopped;
    if (!stopped) {
      entry->done = done;
      std::lock_guard list(stop_waiters_->mutex);
      stop_waiters_->entries.push_back(entry);
    }
  }
  if (stopped) done(absl::OkStatus());
  return std::make_unique<StopWaiter>(stop_waiters_, std::move(entry));
}

host::Vm::ConsoleChunk FakeVm::ReadConsole(uint64_t offset, size_t max) const {
  std::lock_guard lock(mutex_);
  ConsoleChunk chunk;
  chunk.offset = std::min<uint64_t>(offset, console_.size());
  chunk.data = console_.substr(chunk.offset, max);
  chunk.ended = status_.state == host::VmState::kStopped;
  return chunk;
}

absl::Status FakeVm::WriteConsole(std::string_view bytes) {
  std::lock_guard lock(mutex_);
  if (status_.state != host::VmState::kRunning) {
    return WithReason(absl::FailedPreconditionError("the VM does not run"), reason::kWrongState);
  }
  if (typed_.size() + bytes.size() > 8192) {
    return WithReason(absl::ResourceExhaustedError("it does not read"), reason::kConsoleInputFull);
  }
  typed_ += bytes;
  return absl::OkStatus();
}

std::string FakeVm::typed() const {
  std::lock_guard lock(mutex_);
  return typed_;
}

std::unique_ptr<host::Vm::Waiter> FakeVm::OnConsole(std::function<void()> wake) {
  return std::make_unique<ConsoleWaiter>(console_watchers_.Add(std::move(wake)));
}

bool FakeVm::Inside(uint64_t gpa, uint64_t size) const {
  return gpa < spec_.memory_bytes && size <= spec_.memory_bytes - gpa;
}

bool FakeVm::Shared(uint64_t gpa, uint64_t size) const {
  for (uint64_t page = gpa / kPage; page <= (gpa + size - 1) / kPage; ++page) {
    if (!shared_[page]) return false;
  }
  return true;
}

absl::StatusOr<std::vector<mmu::AttributeRun>> FakeVm::Attributes(
    std::optional<mmu::GfnRange> range) const {
  std::lock_guard lock(mutex_);
  const mmu::GfnRange all{mmu::Gfn(0), shared_.size()};
  if (range.has_value() && !all.Contains(*range)) {
    return absl::InvalidArgumentError("the range lies outside the VM's memory");
  }
  const mmu::GfnRange asked = range.value_or(all);
  std::vector<mmu::AttributeRun> runs;
  for (mmu::Gfn gfn = asked.first; gfn < asked.end(); gfn = gfn + 1) {
    const auto kind = shared_[gfn.value] ? mmu::MemoryKind::kShared : mmu::MemoryKind::kPrivate;
    const mmu::Access denied = DeniedOf(gfn);
    if (!runs.empty() && runs.back().kind == kind && runs.back().denied == denied) {
      ++runs.back().range.count;
    } else {
      runs.push_back({{gfn, 1}, kind, denied});
    }
  }
  return runs;
}

absl::StatusOr<mmu::Translation> FakeVm::Translate(uint64_t gpa, mmu::MemoryKind alias) const {
  std::lock_guard lock(mutex_);
  if (!Inside(gpa, 1)) return absl::InvalidArgumentError("the address has reserved bits");
  mmu::Translation translation;
  translation.ept_pointer = mmu::EptPointer::Make(mmu::Hpa(0x100000), 4, true);
  translation.attribute =
      shared_[gpa / kPage] ? mmu::MemoryKind::kShared : mmu::MemoryKind::kPrivate;
  translation.mapped = translation.attribute == alias;
  const auto entry = mmu::EptEntry::Leaf(mmu::Hpa(0x200000), mmu::Level::k4K, mmu::Access::All(),
                                         mmu::MemType::kWriteBack);
  translation.steps.push_back(
      {mmu::Level::k512G, 0, mmu::Hpa(0x100000), mmu::EptEntry::Table(mmu::Hpa(0x101000)).raw()});
  translation.steps.push_back(
      {mmu::Level::k4K, 1, mmu::Hpa(0x101008), translation.mapped ? entry.raw() : 0});
  translation.hpa = mmu::Hpa(0x200000 + gpa % kPage);
  translation.access = mmu::Access::All();
  translation.why = why_;
  return translation;
}

absl::StatusOr<std::string> FakeVm::ReadMemory(uint64_t gpa, uint64_t size) {
  std::lock_guard lock(mutex_);
  if (!Inside(gpa, size)) return absl::InvalidArgumentError("outside the VM's memory");
  if (!Shared(gpa, size)) return absl::PermissionDeniedError("a page of the range is private");
  std::string data(size, '\0');
  for (uint64_t i = 0; i < size; ++i) {
    if (const auto it = bytes_.find(gpa + i); it != bytes_.end()) data[i] = it->second;
  }
  return data;
}

absl::Status FakeVm::WriteMemory(uint64_t gpa, const std::string& data) {
  std::lock_guard lock(mutex_);
  if (!Inside(gpa, data.size())) return absl::InvalidArgumentError("outside the VM's memory");
  if (!Shared(gpa, data.size())) {
    return absl::PermissionDeniedError("a page of the range is private");
  }
  for (size_t i = 0; i < data.size(); ++i) bytes_[gpa + i] = data[i];
  return absl::OkStatus();
}

std::vector<host::PendingConversion> FakeVm::Pending() const {
  std::lock_guard lock(mutex_);
  std::vector<host::PendingConversion> all;
  for (const auto& [id, pending] : pending_) all.push_back(pending);
  return all;
}

host::ResolveResult FakeVm::Resolve(uint64_t id, host::Resolution resolution) {
  using Outcome = host::ResolveResult::Outcome;
  std::lock_guard lock(mutex_);
  if (const auto it = decided_.find(id); it != decided_.end()) {
    return {Outcome::kAlreadyDecided, it->second};
  }
  if (pending_.erase(id) == 0) return {Outcome::kUnknown, std::nullopt};
  const host::ResolveResult::Verdict verdict = {
      resolution == host::Resolution::kApply ? host::Decision::kApplied : host::Decision::kDenied,
      host::Decider::kOrchestrator};
  decided_.emplace(id, verdict);
  return {Outcome::kDecided, verdict};
}

host::VmCounters FakeVm::counters() const {
  std::lock_guard lock(mutex_);
  host::VmCounters counters = counters_;
  counters.pending_conversions = pending_.size();
  return counters;
}

}  // namespace twinroot::fakes
