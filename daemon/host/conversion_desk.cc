#include "daemon/host/conversion_desk.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "daemon/host/memory_events.h"
#include "daemon/reasons.h"
#include "daemon/status_reason.h"
#include "mmu/types/address.h"

namespace twinroot::host {

using mmu::GfnRange;
using mmu::kPageShift;
using mmu::MemoryKind;
using vcpu::StopReason;
using vcpu::VcpuIndex;
using vcpu::Verdict;

ConversionDesk::ConversionDesk(std::string vm, const ConversionPolicy& policy,
                               mmu::GuestAddressSpace* engine, events::Journal* journal,
                               TaskThread* clock, TaskLanes* lanes, Hooks hooks)
    : vm_(std::move(vm)),
      engine_(engine),
      journal_(journal),
      clock_(clock),
      lanes_(lanes),
      hooks_(std::move(hooks)),
      policy_(policy),
      quota_(policy) {}

void ConversionDesk::SetPolicy(const ConversionPolicy& policy) {
  std::lock_guard turn(turn_);
  if (policy == policy_) return;  // what was used of its quotas stays used
  policy_ = policy;
  quota_ = ConversionQuota(policy);
}

std::optional<Verdict> ConversionDesk::Implicit(VcpuIndex vcpu, const mmu::Fault& fault,
                                                const mmu::MemoryFaultExit& exit,
                                                absl::Time exit_time) {
  Release release;
  std::optional<Verdict> verdict;
  {
    std::lock_guard turn(turn_);
    if (closed_) return Verdict::kStop;
    Request request;
    request.vcpu = vcpu;
    request.range = {mmu::Gfn(exit.gpa.value >> kPageShift), exit.size >> kPageShift};
    request.kind = exit.wanted;
    request.exit_time = exit_time;
    if (!engine_->CheckMemory(request.range).ok()) {
      // To the engine a private access outside every memslot is of the wrong kind; to people it is
      // outside memory, as a shared one.
      journal_->Append(
          FaultEvent(vm_, vcpu, exit.gpa, request.kind, v1::MemoryFault::REASON_OUTSIDE_MEMORY));
      release.fatal.emplace(
          StopReason::kMmioOutsideMemory,
          absl::StrCat("vcpu ", vcpu, ": access outside memory at 0x", absl::Hex(exit.gpa.value)));
      verdict = Verdict::kStop;
    } else if (IsAll(*engine_, request.range, request.kind)) {
      return std::nullopt;  // somebody else converted it meanwhile
    } else if (JoinWaiting(request) || HoldBack({vcpu, std::nullopt})) {
      verdict = Verdict::kParked;
    } else {
      verdict = DecideAccess(request, fault, release);
    }
  }
  Do(release);
  return verdict;
}

Verdict ConversionDesk::DecideAccess(Request request, const mmu::Fault& fault, Release& release) {
  request.id = next_id_++;
  if (policy_.mode == PolicyMode::kDeny) {
    Decide({request, false, {}, {}, {}}, Decision::kDenied, Decider::kPolicy, release);
    return Verdict::kStop;
  }
  const absl::Time now = absl::Now();
  const absl::Time turn = quota_.NextTurn(now);
  std::optional<Quota> over = OverQuota(request, request.range, request.range.count, now);
  if (!over && turn - now > policy_.decision_timeout) over = Quota::kRate;
  if (over.has_value()) {
    RefuseAccess(request, *over, release);
    return Verdict::kStop;
  }
  quota_.Take(now);
  if (turn > now) {
    Hold(request, turn);
    return Verdict::kParked;
  }
  rate_told_ = false;
  if (policy_.mode == PolicyMode::kOrchestrator) {
    Park(request);
    return Verdict::kParked;
  }
  const absl::Status status = ApplyAccess(request, Decider::kPolicy, release, &fault);
  if (status.ok()) return Verdict::kResume;
  release.fatal = FatalOf(status);
  return Verdict::kStop;
}

absl::StatusOr<Vm::ConversionResult> ConversionDesk::Api(mmu::AttributeChange change) {
  Release release;
  Vm::ConversionResult result;
  {
    Request request;
    request.exit_time = absl::Now();
    std::lock_guard turn(turn_);
    if (deleted_) {
      return WithReason(absl::NotFoundError(absl::StrCat("VM ", vm_, " was deleted")),
                        reason::kNoSuchVm, {{"vm", vm_}});
    }
    change.requester = mmu::Requester::kHost;
    absl::StatusOr<mmu::AttributeChangeResult> done = engine_->SetMemoryAttributes(change);
    if (!done.ok()) return done.status();
    static_cast<mmu::AttributeChangeResult&>(result) = *done;
    TellAll();
    if (change.kind.has_value()) {
      request.kind = *change.kind;
      request.cause = Cause::kApi;
      // What a waiting request asked for is that request's conversion; the rest is this call's.
      SettleCovered(request.kind, change.ranges, done->converted, Decider::kOrchestrator, release);
      if (!done->converted.empty()) request.id = result.id = next_id_++;
      for (const GfnRange& range : done->converted) {
        Publish(request, range, Decision::kApplied, Decider::kOrchestrator);
      }
    }
    for (const GfnRange& range : done->redenied) {
      // As the engine keeps them: who may not read may not write either.
      const auto now = engine_->GetMemoryAttributes({range.first, 1});
      if (now.ok()) {
        journal_->Append(AttributesEvent(vm_, range, change.kind, now->front().denied));
      }
    }
  }
  Do(release);
  return result;
}

absl::StatusOr<std::vector<GfnRange>> ConversionDesk::Convert(const Request& request,
                                                              GfnRange range) {
  mmu::AttributeChange change;
  change.ranges = {range};
  change.kind = request.kind;
  change.content = request.content;
  change.requester = mmu::Requester::kGuest;
  absl::StatusOr<mmu::AttributeChangeResult> done = engine_->SetMemoryAttributes(change);
  if (!done.ok()) return done.status();
  refused_in_a_row_ = 0;
  quota_.Converted(range, DirectionTo(request.kind), absl::Now());
  return std::move(done->converted);
}

absl::Status ConversionDesk::ApplyAccess(const Request& request, Decider decider, Release& release,
                                         const mmu::Fault* then_map) {
  absl::StatusOr<std::vector<GfnRange>> converted = Convert(request, request.range);
  if (!converted.ok()) return converted.status();
  // Mapping belongs to the latency that the event tells; an outcome that is no mapping shows when
  // the vCPU tries again.
  if (then_map != nullptr) engine_->HandleFault(*then_map);
  TellThose(*converted);
  for (const GfnRange& range : *converted) Publish(request, range, Decision::kApplied, decider);
  if (converted->empty()) {
    // Somebody converted it meanwhile; the request still gets its end.
    Publish(request, {request.range.first, 0}, Decision::kApplied, decider);
  }
  std::vector<GfnRange> none_left;
  SettleCovered(request.kind, {request.range}, none_left, decider, release);
  return absl::OkStatus();
}

bool ConversionDesk::OverSharedBytes(MemoryKind kind, uint64_t pages) const {
  if (policy_.max_shared_bytes == 0 || kind != MemoryKind::kShared) return false;
  const uint64_t allowed = policy_.max_shared_bytes >> kPageShift;
  return engine_->frames(MemoryKind::kShared) + pages > allowed;
}

std::optional<Quota> ConversionDesk::OverQuota(const Request& request, GfnRange range,
                                               uint64_t pages, absl::Time now) const {
  if (quota_.TurnsTooOften(range, DirectionTo(request.kind), now)) return Quota::kPingPong;
  if (OverSharedBytes(request.kind, pages)) return Quota::kSharedBytes;
  return std::nullopt;
}

void ConversionDesk::RefuseAccess(const Request& request, Quota quota, Release& release) {
  Publish(request, request.range, Decision::kQuota, Decider::kPolicy, quota);
  std::string why;
  switch (quota) {
    case Quota::kSharedBytes:
      why = absl::StrCat("more than ", policy_.max_shared_bytes, " bytes would be shared");
      break;
    case Quota::kRate:
      why = absl::StrCat("at ", policy_.max_conversions_per_second,
                         " conversions a second its turn would come after ",
                         absl::FormatDuration(policy_.decision_timeout));
      break;
    case Quota::kPingPong:
      why = absl::StrCat("the 2MiB around it were turned to and fro ", policy_.ping_pong_limit,
                         " times within ", absl::FormatDuration(policy_.ping_pong_window));
      break;
  }
  release.fatal.emplace(
      StopReason::kConversionQuota,
      absl::StrCat("vcpu ", *request.vcpu, ": the access to 0x",
                   absl::Hex(request.range.first.value << kPageShift), " needs a conversion to ",
                   request.kind == MemoryKind::kShared ? "shared" : "private",
                   ", which is over the quota: ", why));
}

void ConversionDesk::Publish(const Request& request, GfnRange range, Decision decision,
                             Decider decider, std::optional<Quota> quota) {
  DecidedConversion decided;
  decided.id = request.id;
  decided.vcpu = request.vcpu;
  decided.gpa = range.first.value << kPageShift;
  decided.size = range.count << kPageShift;
  decided.direction = DirectionTo(request.kind);
  decided.cause = request.cause;
  decided.decision = decision;
  decided.decider = decider;
  decided.latency = absl::Now() - request.exit_time;
  decided.quota = quota;
  journal_->Append(ConversionEvent(vm_, decided));
}

std::pair<StopReason, std::string> ConversionDesk::FatalOf(const absl::Status& status) {
  return {status.code() == absl::StatusCode::kResourceExhausted ? StopReason::kOutOfMemory
                                                                : StopReason::kEngineBug,
          absl::StrCat("a conversion failed: ", std::string(status.message()))};
}

void ConversionDesk::Do(const Release& release) {
  for (const VcpuIndex vcpu : release.resume_fault) hooks_.resume_fault(vcpu);
  for (const auto& [vcpu, answer] : release.answer_map_gpa) hooks_.answer_map_gpa(vcpu, answer);
  if (release.fatal.has_value()) hooks_.fatal(release.fatal->first, release.fatal->second);
}

void ConversionDesk::Close(Closing closing) {
  Release release;  // nobody is left to be released
  std::lock_guard turn(turn_);
  closed_ = true;
  deleted_ |= closing == Closing::kDeleted;
  held_back_.clear();
  room_.reset();
  while (!open_.empty()) End(open_.begin()->first);
  while (!waiting_.empty()) {
    const Waiting waiting = TakeOut(waiting_.begin());
    Decide(waiting, Decision::kDenied, Decider::kVmStop, release);
  }
}

}  // namespace twinroot::host
