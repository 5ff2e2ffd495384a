// The desk's requests whose vCPUs are parked: how they come to wait, and every way out.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "daemon/host/conversion_desk.h"

namespace twinroot::host {

using mmu::GfnRange;
using mmu::kPageShift;
using mmu::MemoryKind;
using vcpu::MapGpaAnswer;
using vcpu::MapGpaResult;
using vcpu::StopReason;
using vcpu::VcpuIndex;

namespace {

// What of `ranges` lies inside `window`; it is taken out of `ranges`.
std::vector<GfnRange> TakeOutOf(std::vector<GfnRange>& ranges, GfnRange window) {
  std::vector<GfnRange> inside, outside;
  for (const GfnRange& range : ranges) {
    const GfnRange part = mmu::Intersection(range, window);
    if (part.empty()) {
      outside.push_back(range);
      continue;
    }
    inside.push_back(part);
    if (range.first < part.first) outside.push_back({range.first, part.first - range.first});
    if (part.end() < range.end()) outside.push_back({part.end(), range.end() - part.end()});
  }
  ranges = std::move(outside);
  return inside;
}

}  // namespace

bool ConversionDesk::JoinWaiting(const Request& request) {
  for (auto& [id, waiting] : waiting_) {
    if (waiting.request.cause != Cause::kImplicit || !(waiting.request.range == request.range) ||
        waiting.request.kind != request.kind) {
      continue;
    }
    if (std::find(waiting.vcpus.begin(), waiting.vcpus.end(), *request.vcpu) ==
        waiting.vcpus.end()) {
      waiting.vcpus.push_back(*request.vcpu);
    }
    return true;
  }
  return false;
}

template <typename Task>
TaskThread::Ticket ConversionDesk::OnLaneAt(absl::Time when, Task task) {
  return clock_->PostAt(when, [weak = weak_from_this(), task] {
    if (const std::shared_ptr<ConversionDesk> desk = weak.lock()) {
      desk->lanes_->Post(desk.get(), [desk, task] { task(*desk); });
    }
  });
}

TaskThread::Ticket ConversionDesk::TimerAt(absl::Time when, uint64_t id) {
  return OnLaneAt(when, [id](ConversionDesk& desk) { desk.Due(id); });
}

void ConversionDesk::TellLater() {
  constexpr absl::Duration kPatience = absl::Milliseconds(100);
  if (tell_later_) return;
  tell_later_ = true;
  OnLaneAt(absl::Now() + kPatience, [](ConversionDesk& desk) { desk.TellDue(); });
}

void ConversionDesk::Park(const Request& request) {
  const absl::Time deadline = absl::Now() + policy_.decision_timeout;
  Waiting& waiting = waiting_[request.id];
  // A request that was held has its vCPUs already.
  if (waiting.vcpus.empty()) waiting.vcpus = {*request.vcpu};
  waiting.request = request;
  waiting.held = false;
  waiting.deadline = deadline;
  waiting.timer = TimerAt(deadline, request.id);
  Show();  // who hears of it finds it
  journal_->Append(RequestedEvent(
      vm_,
      {request.id, *request.vcpu, request.range.first.value << kPageShift,
       request.range.count << kPageShift, DirectionTo(request.kind), request.cause, deadline}));
}

void ConversionDesk::Hold(const Request& request, absl::Time until) {
  throttled_.fetch_add(1, std::memory_order_relaxed);
  waiting_[request.id] = {request, true, until, {*request.vcpu}, TimerAt(until, request.id)};
  Show();
}

ConversionDesk::Waiting ConversionDesk::TakeOut(std::map<uint64_t, Waiting>::iterator it) {
  Waiting waiting = std::move(it->second);
  clock_->Cancel(waiting.timer);
  waiting_.erase(it);
  Show();
  return waiting;
}

Decision ConversionDesk::Decide(const Waiting& waiting, Decision decision, Decider decider,
                                Release& release) {
  const Request& request = waiting.request;
  if (decision == Decision::kApplied) {
    decision = request.cause == Cause::kExplicit ? DecideMapGpa(waiting, decider, release)
                                                 : DecideAccess(waiting, decider, release);
  } else {
    Publish(request, request.range, decision, decider);
    if (request.cause == Cause::kExplicit) {
      LetGo(waiting, MapGpaResult::kDenied, release);
      CountRefusal(request, StopReason::kConversionDenied, release);
    } else if (decider != Decider::kVmStop) {
      release.fatal.emplace(
          StopReason::kConversionDenied,
          absl::StrCat("vcpu ", *request.vcpu, ": the access to 0x",
                       absl::Hex(request.range.first.value << kPageShift),
                       " needs a conversion to ",
                       request.kind == MemoryKind::kShared ? "shared" : "private", ", which was ",
                       decision == Decision::kExpired ? "not decided in time" : "denied"));
    }
  }
  history_.Add(request.id, {decision, decider});
  return decision;
}

Decision ConversionDesk::DecideAccess(const Waiting& waiting, Decider decider, Release& release) {
  const Request& request = waiting.request;
  if (OverSharedBytes(request.kind, request.range.count)) {
    RefuseAccess(request, Quota::kSharedBytes, release);
    return Decision::kQuota;
  }
  if (!engine_->CheckMemory(request.range).ok()) {
    // Its memory was taken away while it waited: the access finds that out by itself.
    Publish(request, request.range, Decision::kDenied, decider);
    LetGo(waiting, MapGpaResult::kOk, release);
    return Decision::kDenied;
  }
  if (absl::Status status = ApplyAccess(request, decider, release); !status.ok()) {
    Publish(request, request.range, Decision::kDenied, decider);  // who heard of it hears its end
    release.fatal = FatalOf(status);
    return Decision::kDenied;
  }
  LetGo(waiting, MapGpaResult::kOk, release);
  return Decision::kApplied;
}

// The first chunk; the vCPU asks for the rest.
Decision ConversionDesk::DecideMapGpa(const Waiting& waiting, Decider decider, Release& release) {
  const Request& request = waiting.request;
  const VcpuIndex vcpu = *request.vcpu;
  const absl::StatusOr<Chunk> chunk = NextChunk(*engine_, request.range, request.kind);
  if (chunk.ok() && OverSharedBytes(request.kind, chunk->pages)) {
    LetGo(waiting, RefuseMapGpa(request, Quota::kSharedBytes, release).answer, release);
    return Decision::kQuota;
  }
  if (!chunk.ok()) {
    // Its memory was taken away while it waited.
    Publish(request, request.range, Decision::kDenied, decider);
    LetGo(waiting, MapGpaResult::kInvalid, release);
    return Decision::kDenied;
  }
  Open& open = open_[vcpu];
  open = {request, decider, request.range.first, {}, {}, false};
  const absl::StatusOr<MapGpaAnswer> answer = ApplyChunk(open, *chunk, request.exit_time, release);
  if (!answer.ok()) {
    release.fatal = FatalOf(answer.status());
    return Decision::kDenied;
  }
  LetGo(waiting, *answer, release);
  return Decision::kApplied;
}

void ConversionDesk::SettleCovered(MemoryKind kind, const std::vector<GfnRange>& changed,
                                   std::vector<GfnRange>& converted, Decider decider,
                                   Release& release) {
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    const Request& request = it->second.request;
    const bool touched = std::any_of(changed.begin(), changed.end(), [&](const GfnRange& range) {
      return range.Overlaps(request.range);
    });
    if (!touched || request.kind != kind || !IsAll(*engine_, request.range, kind)) {
      ++it;
      continue;
    }
    const auto next = std::next(it);
    const Waiting waiting = TakeOut(it);
    it = next;
    const std::vector<GfnRange> own = TakeOutOf(converted, waiting.request.range);
    for (const GfnRange& range : own) {
      Publish(waiting.request, range, Decision::kApplied, decider);
    }
    if (own.empty()) {
      Publish(waiting.request, {waiting.request.range.first, 0}, Decision::kApplied, decider);
    }
    history_.Add(waiting.request.id, {Decision::kApplied, decider});
    LetGo(waiting, MapGpaResult::kOk, release);
  }
}

void ConversionDesk::LetGo(const Waiting& waiting, MapGpaAnswer answer, Release& release) {
  for (const VcpuIndex vcpu : waiting.vcpus) {
    if (waiting.request.cause == Cause::kExplicit) {
      release.answer_map_gpa.emplace_back(vcpu, answer);
    } else {
      release.resume_fault.push_back(vcpu);
    }
  }
}

ResolveResult ConversionDesk::Resolve(uint64_t id, Resolution resolution) {
  using Outcome = ResolveResult::Outcome;
  Release release;
  ResolveResult result;
  {
    std::lock_guard turn(turn_);
    if (const auto it = waiting_.find(id); it != waiting_.end()) {
      const Decision decision = Decide(
          TakeOut(it), resolution == Resolution::kApply ? Decision::kApplied : Decision::kDenied,
          Decider::kOrchestrator, release);
      result = {Outcome::kDecided, {{decision, Decider::kOrchestrator}}};
    } else if (id == 0 || id >= next_id_) {
      result = {Outcome::kUnknown, std::nullopt};
    } else {
      const std::optional<ResolveResult::Verdict> verdict = history_.Find(id);
      result = {verdict.has_value() && verdict->decider == Decider::kDeadline
                    ? Outcome::kExpired
                    : Outcome::kAlreadyDecided,
                verdict};
    }
  }
  Do(release);
  return result;
}

void ConversionDesk::Due(uint64_t id) {
  Release release;
  {
    std::lock_guard turn(turn_);
    const auto it = waiting_.find(id);
    if (it == waiting_.end()) return;  // decided after the clock struck
    if (it->second.held) rate_told_ = false;
    if (!it->second.held) {
      Decide(TakeOut(it),
             policy_.on_timeout == OnTimeout::kApply ? Decision::kApplied : Decision::kExpired,
             Decider::kDeadline, release);
    } else if (policy_.mode == PolicyMode::kOrchestrator) {
      Park(Request(it->second.request));
    } else {
      Decide(TakeOut(it), Decision::kApplied, Decider::kPolicy, release);
    }
  }
  Do(release);
}

bool ConversionDesk::HoldBack(const HeldBack& asking) {
  std::optional<absl::Time> until = journal_->HeldUntil(vm_);
  if (!until.has_value()) return false;
  if (room_ == nullptr) {
    room_ = journal_->lossless().OnChange([weak = weak_from_this()] {
      if (const std::shared_ptr<ConversionDesk> desk = weak.lock()) {
        desk->lanes_->Post(desk.get(), [desk] { desk->LetHeldBackGo(); });
      }
    });
    // Looks again now that it listens: room that came in between was not heard of.
    until = journal_->HeldUntil(vm_);
    if (!until.has_value()) {
      room_.reset();
      return false;
    }
  }
  // A parked vCPU may come again: a signal woke it. A fault of the kernel's own work counts as
  // vCPU 0's, and may wait beside a MapGPA of that one.
  const auto same = [&asking](const HeldBack& held) {
    return held.vcpu == asking.vcpu && held.ask_again.has_value() == asking.ask_again.has_value();
  };
  if (std::erase_if(held_back_, same) == 0) {
    held_back_count_.fetch_add(1, std::memory_order_relaxed);
  }
  held_back_.push_back(asking);
  LookForRoomAt(*until);
  return true;
}

void ConversionDesk::LookForRoomAt(absl::Time when) {
  clock_->Cancel(patience_);
  patience_ = OnLaneAt(when, [](ConversionDesk& desk) { desk.LetHeldBackGo(); });
}

void ConversionDesk::LetHeldBackGo() {
  Release release;
  {
    std::lock_guard turn(turn_);
    if (held_back_.empty()) return;
    if (const std::optional<absl::Time> until = journal_->HeldUntil(vm_)) {
      LookForRoomAt(*until);
      return;
    }
    for (const HeldBack& held : held_back_) {
      if (held.ask_again.has_value()) {
        release.answer_map_gpa.emplace_back(held.vcpu, *held.ask_again);
      } else {
        release.resume_fault.push_back(held.vcpu);
      }
    }
    held_back_.clear();
    room_.reset();
    clock_->Cancel(patience_);
  }
  Do(release);
}

void ConversionDesk::TellDue() {
  std::lock_guard turn(turn_);
  tell_later_ = false;
  TellAll();
}

void ConversionDesk::Show() {
  std::vector<PendingConversion> now;
  const auto add = [&now](const Request& request, absl::Time deadline,
                          PendingConversion::State state, uint64_t done) {
    now.push_back({request.id, *request.vcpu, request.range.first.value << kPageShift,
                   request.range.count << kPageShift, DirectionTo(request.kind), request.cause,
                   deadline, state, done << kPageShift});
  };
  for (const auto& [id, waiting] : waiting_) {
    add(waiting.request, waiting.deadline,
        waiting.held ? PendingConversion::State::kHeld : PendingConversion::State::kWaiting, 0);
  }
  for (const auto& [vcpu, open] : open_) {
    add(open.request, absl::InfiniteFuture(), PendingConversion::State::kApplying,
        open.next - open.request.range.first);
  }
  std::sort(now.begin(), now.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  std::lock_guard lock(shown_mutex_);
  shown_.swap(now);
}

std::vector<PendingConversion> ConversionDesk::Pending() const {
  std::lock_guard lock(shown_mutex_);
  return shown_;
}

size_t ConversionDesk::waiting() const {
  std::lock_guard lock(shown_mutex_);
  return static_cast<size_t>(std::count_if(shown_.begin(), shown_.end(), [](const auto& pending) {
    return pending.state != PendingConversion::State::kApplying;
  }));
}

}  // namespace twinroot::host
