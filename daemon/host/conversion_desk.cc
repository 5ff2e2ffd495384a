#include "daemon/host/conversion_desk.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "daemon/host/memory_events.h"
#include "daemon/reasons.h"
#include "daemon/status_reason.h"
#include "mmu/types/address.h"

namespace twinroot::host {
namespace {

using mmu::Gfn;
using mmu::GfnRange;
using mmu::kPageShift;
using mmu::MemoryKind;
using vcpu::MapGpaResult;
using vcpu::StopReason;
using vcpu::VcpuIndex;
using vcpu::Verdict;

// Bits of MapGPA's attributes (RDX).
constexpr uint64_t kMapSizeHint = 0xf;
constexpr uint64_t kMapPrivate = 1 << 4;
constexpr uint64_t kMapPreserve = 1 << 5;

// A guest that asks on after this many refusals, with nothing granted between, is stopped: it would
// fill the journal for everybody.
constexpr uint32_t kMaxRefusalsInARow = 1000;

// What of `ranges` lies inside `window`; it is taken out of `ranges`.
std::vector<GfnRange> TakeOut(std::vector<GfnRange>& ranges, GfnRange window) {
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

ConversionDesk::ConversionDesk(std::string vm, const ConversionPolicy& policy,
                               mmu::GuestAddressSpace* engine, events::Journal* journal,
                               TaskThread* clock, Hooks hooks)
    : vm_(std::move(vm)),
      engine_(engine),
      journal_(journal),
      clock_(clock),
      hooks_(std::move(hooks)),
      policy_(policy) {}

void ConversionDesk::SetPolicy(const ConversionPolicy& policy) {
  std::lock_guard lock(mutex_);
  policy_ = policy;
}

std::optional<Verdict> ConversionDesk::Implicit(VcpuIndex vcpu, const mmu::Fault& fault,
                                                const mmu::MemoryFaultExit& exit,
                                                absl::Time exit_time) {
  Release release;
  std::optional<Verdict> verdict;
  {
    std::lock_guard lock(mutex_);
    if (closed_) return Verdict::kStop;
    Request request;
    request.vcpu = vcpu;
    request.range = {Gfn(exit.gpa.value >> kPageShift), exit.size >> kPageShift};
    request.kind = exit.wanted;
    request.cause = Cause::kImplicit;
    request.exit_time = exit_time;
    const std::optional<bool> decided = IsAll(request.range, request.kind);
    if (decided == true) return std::nullopt;  // by somebody else meanwhile
    if (!decided.has_value()) {
      // A private access outside every memslot is a memory fault, and nothing can be converted.
      journal_->Append(
          FaultEvent(vm_, vcpu, exit.gpa, request.kind, v1::MemoryFault::REASON_OUTSIDE_MEMORY));
      release.fatal.emplace(
          StopReason::kMemoryFault,
          absl::StrCat("vcpu ", vcpu, ": access outside memory at 0x", absl::Hex(exit.gpa.value)));
      verdict = Verdict::kStop;
    } else {
      verdict = DecideAccess(request, fault, release);
    }
  }
  Do(release);
  return verdict;
}

Verdict ConversionDesk::DecideAccess(Request request, const mmu::Fault& fault, Release& release) {
  switch (policy_.mode) {
    case PolicyMode::kAuto:
      request.id = next_id_++;
      if (absl::Status status = Apply(request, Decider::kPolicy, release, &fault); !status.ok()) {
        release.fatal = FatalOf(status);
        return Verdict::kStop;
      }
      return Verdict::kResume;
    case PolicyMode::kDeny:
      request.id = next_id_++;
      Decide({request, request.exit_time, {}, {}}, Decision::kDenied, Decider::kPolicy, release);
      return Verdict::kStop;
    case PolicyMode::kOrchestrator:
      Park(request);
      return Verdict::kParked;
  }
  return Verdict::kStop;
}

vcpu::MapGpaVerdict ConversionDesk::Explicit(VcpuIndex vcpu, const vcpu::MapGpaCall& call,
                                             absl::Time exit_time) {
  constexpr vcpu::MapGpaVerdict kInvalid = {Verdict::kResume, MapGpaResult::kInvalid};
  const uint64_t first = call.gpa >> kPageShift;
  if ((call.attributes & ~(kMapSizeHint | kMapPrivate | kMapPreserve)) != 0 ||
      (call.gpa & mmu::kPageOffsetMask) != 0 || call.pages == 0 ||
      call.pages > engine_->layout().gfn_limit().value || first + call.pages < first ||
      Gfn(first + call.pages) > engine_->layout().gfn_limit()) {
    return kInvalid;
  }
  Request request;
  request.vcpu = vcpu;
  request.range = {Gfn(first), call.pages};
  request.kind = call.attributes & kMapPrivate ? MemoryKind::kPrivate : MemoryKind::kShared;
  request.cause = Cause::kExplicit;
  request.content =
      call.attributes & kMapPreserve ? mmu::Content::kPreserve : mmu::Content::kDestroy;
  request.exit_time = exit_time;

  Release release;
  vcpu::MapGpaVerdict verdict;
  {
    std::lock_guard lock(mutex_);
    if (closed_) return {Verdict::kStop, MapGpaResult::kOk};
    const std::optional<bool> done = IsAll(request.range, request.kind);
    if (!done.has_value()) return kInvalid;  // outside memory
    if (*done) return {Verdict::kResume, MapGpaResult::kOk};
    switch (policy_.mode) {
      case PolicyMode::kAuto:
        request.id = next_id_++;
        if (absl::Status status = Apply(request, Decider::kPolicy, release); !status.ok()) {
          release.fatal = FatalOf(status);
          verdict.verdict = Verdict::kStop;
        }
        break;
      case PolicyMode::kDeny:
        request.id = next_id_++;
        Publish(request, request.range, Decision::kDenied, Decider::kPolicy);
        verdict.result = MapGpaResult::kDenied;
        Refuse(request, release);
        break;
      case PolicyMode::kOrchestrator:
        Park(request);
        verdict.verdict = Verdict::kParked;
        break;
    }
  }
  Do(release);
  return verdict;
}

absl::StatusOr<Vm::ConversionResult> ConversionDesk::Api(mmu::AttributeChange change) {
  Release release;
  Vm::ConversionResult result;
  {
    Request request;
    request.exit_time = absl::Now();
    std::lock_guard lock(mutex_);
    if (deleted_) {
      return WithReason(absl::NotFoundError(absl::StrCat("VM ", vm_, " was deleted")),
                        reason::kNoSuchVm, {{"vm", vm_}});
    }
    change.requester = mmu::Requester::kHost;
    absl::StatusOr<mmu::AttributeChangeResult> done = engine_->SetMemoryAttributes(change);
    if (!done.ok()) return done.status();
    static_cast<mmu::AttributeChangeResult&>(result) = *done;
    if (change.kind.has_value()) {
      request.kind = *change.kind;
      request.cause = Cause::kApi;
      // What a waiting request asked for is that request's conversion; the rest is this call's.
      SettleCovered(request.kind, done->converted, Decider::kOrchestrator, release);
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

absl::Status ConversionDesk::Apply(const Request& request, Decider decider, Release& release,
                                   const mmu::Fault* then_map) {
  mmu::AttributeChange change;
  change.ranges = {request.range};
  change.kind = request.kind;
  change.content = request.content;
  change.requester = mmu::Requester::kGuest;
  absl::StatusOr<mmu::AttributeChangeResult> done = engine_->SetMemoryAttributes(change);
  if (!done.ok()) return done.status();
  refused_in_a_row_ = 0;
  // Mapping belongs to the latency that the event tells; an outcome that is no mapping shows when
  // the vCPU tries again.
  if (then_map != nullptr) engine_->HandleFault(*then_map);
  for (const GfnRange& range : done->converted) {
    Publish(request, range, Decision::kApplied, decider);
  }
  if (done->converted.empty()) {
    // Somebody converted it in parts meanwhile; the request still gets its end.
    Publish(request, {request.range.first, 0}, Decision::kApplied, decider);
  }
  done->converted.clear();
  SettleCovered(request.kind, done->converted, decider, release);
  return absl::OkStatus();
}

void ConversionDesk::Park(const Request& request) {
  if (request.cause == Cause::kImplicit) {
    for (auto& [id, waiting] : waiting_) {
      if (waiting.request.cause != Cause::kImplicit || !(waiting.request.range == request.range) ||
          waiting.request.kind != request.kind) {
        continue;
      }
      if (std::find(waiting.vcpus.begin(), waiting.vcpus.end(), *request.vcpu) ==
          waiting.vcpus.end()) {
        waiting.vcpus.push_back(*request.vcpu);
      }
      return;
    }
  }
  Waiting waiting = {request, absl::Now() + policy_.decision_timeout, {*request.vcpu}, {}};
  waiting.request.id = next_id_++;
  const uint64_t id = waiting.request.id;
  journal_->Append(RequestedEvent(vm_, Describe(waiting)));
  waiting.expiry = clock_->PostAt(waiting.deadline, [weak = weak_from_this(), id] {
    if (const std::shared_ptr<ConversionDesk> desk = weak.lock()) desk->Expire(id);
  });
  waiting_.emplace(id, std::move(waiting));
}

void ConversionDesk::Decide(Waiting waiting, Decision decision, Decider decider, Release& release) {
  const Request& request = waiting.request;
  if (decision == Decision::kApplied) {
    if (absl::Status status = Apply(request, decider, release); !status.ok()) {
      Publish(request, request.range, Decision::kDenied, decider);  // who heard of it hears its end
      release.fatal = FatalOf(status);
      return;
    }
    LetGo(waiting, MapGpaResult::kOk, release);
    return;
  }
  Publish(request, request.range, decision, decider);
  if (request.cause == Cause::kExplicit) {
    LetGo(waiting, MapGpaResult::kDenied, release);
    Refuse(request, release);
  } else if (decider != Decider::kVmStop) {
    release.fatal.emplace(
        StopReason::kConversionDenied,
        absl::StrCat("vcpu ", *request.vcpu, ": the access to 0x",
                     absl::Hex(request.range.first.value << kPageShift), " needs a conversion to ",
                     request.kind == MemoryKind::kShared ? "shared" : "private", ", which was ",
                     decision == Decision::kExpired ? "not decided in time" : "denied"));
  }
}

void ConversionDesk::LetGo(const Waiting& waiting, MapGpaResult result, Release& release) {
  for (const VcpuIndex vcpu : waiting.vcpus) {
    if (waiting.request.cause == Cause::kExplicit) {
      release.answer_map_gpa.emplace_back(vcpu, result);
    } else {
      release.resume_fault.push_back(vcpu);
    }
  }
}

void ConversionDesk::Refuse(const Request& request, Release& release) {
  if (++refused_in_a_row_ < kMaxRefusalsInARow) return;
  release.fatal.emplace(
      StopReason::kConversionDenied,
      absl::StrCat("vcpu ", *request.vcpu, ": ", refused_in_a_row_,
                   " conversions were refused in a row; the guest does not take no for an answer"));
}

void ConversionDesk::SettleCovered(MemoryKind kind, std::vector<GfnRange>& converted,
                                   Decider decider, Release& release) {
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    const Request& request = it->second.request;
    if (request.kind != kind || IsAll(request.range, kind) != true) {
      ++it;
      continue;
    }
    const std::vector<GfnRange> own = TakeOut(converted, request.range);
    for (const GfnRange& range : own) Publish(request, range, Decision::kApplied, decider);
    if (own.empty()) Publish(request, {request.range.first, 0}, Decision::kApplied, decider);
    LetGo(it->second, MapGpaResult::kOk, release);
    clock_->Cancel(it->second.expiry);
    it = waiting_.erase(it);
  }
}

PendingConversion ConversionDesk::Describe(const Waiting& waiting) {
  const Request& request = waiting.request;
  return {request.id,
          *request.vcpu,
          request.range.first.value << kPageShift,
          request.range.count << kPageShift,
          DirectionTo(request.kind),
          request.cause,
          waiting.deadline};
}

std::vector<PendingConversion> ConversionDesk::Pending() const {
  std::lock_guard lock(mutex_);
  std::vector<PendingConversion> pending;
  for (const auto& [id, waiting] : waiting_) {
    pending.push_back(Describe(waiting));
  }
  return pending;
}

bool ConversionDesk::Resolve(uint64_t id, Resolution resolution) {
  Release release;
  {
    std::lock_guard lock(mutex_);
    auto node = waiting_.extract(id);
    if (node.empty()) return false;
    clock_->Cancel(node.mapped().expiry);
    Decide(std::move(node.mapped()),
           resolution == Resolution::kApply ? Decision::kApplied : Decision::kDenied,
           Decider::kOrchestrator, release);
  }
  Do(release);
  return true;
}

void ConversionDesk::Expire(uint64_t id) {
  Release release;
  {
    std::lock_guard lock(mutex_);
    auto node = waiting_.extract(id);
    if (node.empty()) return;
    Decide(std::move(node.mapped()),
           policy_.on_timeout == OnTimeout::kApply ? Decision::kApplied : Decision::kExpired,
           Decider::kDeadline, release);
  }
  Do(release);
}

void ConversionDesk::Close(Closing closing) {
  Release release;  // nobody is left to be released
  std::lock_guard lock(mutex_);
  closed_ = true;
  deleted_ = closing == Closing::kDeleted;
  for (auto& [id, waiting] : waiting_) {
    clock_->Cancel(waiting.expiry);
    Decide(waiting, Decision::kDenied, Decider::kVmStop, release);
  }
  waiting_.clear();
}

std::optional<bool> ConversionDesk::IsAll(GfnRange range, MemoryKind kind) const {
  const absl::StatusOr<std::vector<mmu::AttributeRun>> runs = engine_->GetMemoryAttributes(range);
  if (!runs.ok()) return std::nullopt;
  return std::all_of(runs->begin(), runs->end(),
                     [kind](const mmu::AttributeRun& run) { return run.kind == kind; });
}

void ConversionDesk::Publish(const Request& request, GfnRange range, Decision decision,
                             Decider decider) {
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
  journal_->Append(ConversionEvent(vm_, decided));
}

std::pair<StopReason, std::string> ConversionDesk::FatalOf(const absl::Status& status) {
  return {status.code() == absl::StatusCode::kResourceExhausted ? StopReason::kOutOfMemory
                                                                : StopReason::kEngineBug,
          absl::StrCat("a conversion failed: ", std::string(status.message()))};
}

void ConversionDesk::Do(const Release& release) {
  for (const VcpuIndex vcpu : release.resume_fault) hooks_.resume_fault(vcpu);
  for (const auto& [vcpu, result] : release.answer_map_gpa) hooks_.answer_map_gpa(vcpu, result);
  if (release.fatal.has_value()) hooks_.fatal(release.fatal->first, release.fatal->second);
}

}  // namespace twinroot::host
