// The desk's MapGPA: one chunk at a time, one request over all its chunks.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "daemon/host/conversion_desk.h"

namespace twinroot::host {
namespace {

using mmu::Gfn;
using mmu::GfnRange;
using mmu::kPageShift;
using vcpu::MapGpaAnswer;
using vcpu::MapGpaResult;
using vcpu::MapGpaVerdict;
using vcpu::StopReason;
using vcpu::VcpuIndex;
using vcpu::Verdict;

// Bits of MapGPA's attributes (RDX).
constexpr uint64_t kMapSizeHint = 0xf;
constexpr uint64_t kMapPrivate = 1 << 4;
constexpr uint64_t kMapPreserve = vcpu::kMapGpaPreserve;

// A guest that asks on after this many refusals, with nothing granted between, is stopped: it would
// fill the journal for everybody.
constexpr uint32_t kMaxRefusalsInARow = 1000;

MapGpaAnswer RetryAt(Gfn gfn) { return {MapGpaResult::kRetry, gfn.value << kPageShift}; }

}  // namespace

std::optional<ConversionDesk::Request> ConversionDesk::Parse(VcpuIndex vcpu,
                                                             const vcpu::MapGpaCall& call,
                                                             absl::Time exit_time) const {
  const uint64_t first = call.gpa >> kPageShift;
  const Gfn limit = engine_->layout().gfn_limit();
  if ((call.attributes & ~(kMapSizeHint | kMapPrivate | kMapPreserve)) != 0 ||
      (call.gpa & mmu::kPageOffsetMask) != 0 || call.pages == 0 || call.pages > limit.value ||
      first + call.pages < first || Gfn(first + call.pages) > limit) {
    return std::nullopt;
  }
  Request request;
  request.vcpu = vcpu;
  request.range = {Gfn(first), call.pages};
  request.kind =
      call.attributes & kMapPrivate ? mmu::MemoryKind::kPrivate : mmu::MemoryKind::kShared;
  request.cause = Cause::kExplicit;
  request.content =
      call.attributes & kMapPreserve ? mmu::Content::kPreserve : mmu::Content::kDestroy;
  request.exit_time = exit_time;
  return request;
}

MapGpaVerdict ConversionDesk::Explicit(VcpuIndex vcpu, const vcpu::MapGpaCall& call,
                                       absl::Time exit_time) {
  const std::optional<Request> request = Parse(vcpu, call, exit_time);
  if (!request.has_value()) return {Verdict::kResume, MapGpaResult::kInvalid};
  Release release;
  MapGpaVerdict verdict;
  {
    std::lock_guard turn(turn_);
    if (closed_) return {Verdict::kStop, {}};
    verdict = Ask(*request, release);
  }
  Do(release);
  return verdict;
}

MapGpaVerdict ConversionDesk::Ask(Request request, Release& release) {
  Open* open = GoesOn(request);
  const absl::Status in_memory = engine_->CheckMemory(request.range);
  const absl::StatusOr<Chunk> chunk =
      in_memory.ok() ? NextChunk(*engine_, request.range, request.kind) : in_memory;
  if (!chunk.ok()) {
    End(*request.vcpu);
    return {Verdict::kResume, MapGpaResult::kInvalid};
  }
  if (chunk->range.empty()) {
    if (open != nullptr) open->next = chunk->end;
    if (chunk->end < request.range.end()) return {Verdict::kResume, RetryAt(chunk->end)};
    End(*request.vcpu);
    return {Verdict::kResume, MapGpaResult::kOk};
  }
  if (HoldBack({*request.vcpu, RetryAt(chunk->range.first)})) {
    if (open != nullptr) open->next = chunk->range.first;
    return {Verdict::kParked, {}};
  }
  if (policy_.mode == PolicyMode::kDeny && open == nullptr) {
    request.id = next_id_++;
    Publish(request, request.range, Decision::kDenied, Decider::kPolicy);
    CountRefusal(request, StopReason::kConversionDenied, release);
    return {Verdict::kResume, MapGpaResult::kDenied};
  }
  const absl::Time now = absl::Now();
  std::optional<Quota> over = OverQuota(request, chunk->range, chunk->pages, now);
  if (!over && quota_.NextTurn(now) > now) over = Quota::kRate;
  if (over.has_value()) {
    if (open != nullptr) {
      // What is refused for good is an end of the request; a retry is none.
      if (*over != Quota::kRate) request.id = open->request.id;
      open->next = chunk->range.first;
    }
    request.range = {chunk->range.first, request.range.end() - chunk->range.first};
    return RefuseMapGpa(std::move(request), *over, release);
  }
  quota_.Take(now);
  rate_told_ = false;
  if (open == nullptr) {
    request.id = next_id_++;
    if (policy_.mode == PolicyMode::kOrchestrator) {
      Park(request);
      return {Verdict::kParked, {}};
    }
    open = &open_[*request.vcpu];
    open->request = request;
    open->next = request.range.first;
  }
  const absl::StatusOr<MapGpaAnswer> answer = ApplyChunk(*open, *chunk, request.exit_time, release);
  if (answer.ok()) return {Verdict::kResume, *answer};
  release.fatal = FatalOf(answer.status());
  return {Verdict::kStop, {}};
}

// The vCPU's granted request, if this call asks for the rest of it; another one ends.
ConversionDesk::Open* ConversionDesk::GoesOn(const Request& request) {
  const auto it = open_.find(*request.vcpu);
  if (it == open_.end()) return nullptr;
  Open& open = it->second;
  if (open.next == request.range.first && open.request.range.end() == request.range.end() &&
      open.request.kind == request.kind && open.request.content == request.content) {
    return &open;
  }
  End(*request.vcpu);
  return nullptr;
}

MapGpaVerdict ConversionDesk::RefuseMapGpa(Request request, Quota quota, Release& release) {
  const bool come_again = quota == Quota::kRate;
  if (come_again) {
    throttled_.fetch_add(1, std::memory_order_relaxed);
    // The guest will ask again at once, and again: one event says it.
    if (std::exchange(rate_told_, true)) return {Verdict::kResume, RetryAt(request.range.first)};
  } else {
    End(*request.vcpu);
    CountRefusal(request, StopReason::kConversionQuota, release);
  }
  if (request.id == 0) request.id = next_id_++;
  Publish(request, request.range, Decision::kQuota, Decider::kPolicy, quota);
  return {Verdict::kResume,
          come_again ? RetryAt(request.range.first) : MapGpaAnswer(MapGpaResult::kDenied)};
}

absl::StatusOr<MapGpaAnswer> ConversionDesk::ApplyChunk(Open& open, const Chunk& chunk,
                                                        absl::Time exit_time, Release& release) {
  const Request request = open.request;
  const Decider decider = open.decider;
  const Gfn end = request.range.end();
  std::vector<GfnRange> converted;
  if (!chunk.range.empty()) {
    auto done = Convert(request, chunk.range);
    if (!done.ok()) {
      Tell(open);
      Publish(request, {open.next, end - open.next}, Decision::kDenied, decider);
      open_.erase(*request.vcpu);
      Show();
      return done.status();
    }
    converted = *std::move(done);
  }
  TellThose(converted);
  for (const GfnRange& range : converted) {
    if (!open.untold.empty() && open.untold.end() == range.first) {
      open.untold.count += range.count;
      continue;
    }
    Tell(open);
    open.untold = range;
    open.untold_since = exit_time;
  }
  open.next = chunk.end;
  const bool done = chunk.end == end;
  if (done) {
    End(*request.vcpu);
  } else {
    TellLater();
    Show();
  }
  std::vector<GfnRange> none_left;
  SettleCovered(request.kind, {chunk.range}, none_left, decider, release);
  return done ? MapGpaAnswer(MapGpaResult::kOk) : RetryAt(chunk.end);
}

void ConversionDesk::End(VcpuIndex vcpu) {
  const auto it = open_.find(vcpu);
  if (it == open_.end()) return;
  Open& open = it->second;
  Tell(open);
  if (!open.told) {
    // Somebody else converted all of it meanwhile; the request still gets its end.
    Publish(open.request, {open.request.range.first, 0}, Decision::kApplied, open.decider);
  }
  open_.erase(it);
  Show();
}

void ConversionDesk::Tell(Open& open) {
  if (open.untold.empty()) return;
  Request request = open.request;
  request.exit_time = open.untold_since;
  Publish(request, open.untold, Decision::kApplied, open.decider);
  open.untold = {};
  open.told = true;
}

void ConversionDesk::TellThose(const std::vector<GfnRange>& ranges) {
  for (auto& [vcpu, open] : open_) {
    for (const GfnRange& range : ranges) {
      if (range.Overlaps(open.untold)) Tell(open);
    }
  }
}

void ConversionDesk::TellAll() {
  for (auto& [vcpu, open] : open_) Tell(open);
}

void ConversionDesk::CountRefusal(const Request& request, StopReason reason, Release& release) {
  if (++refused_in_a_row_ < kMaxRefusalsInARow) return;
  release.fatal.emplace(
      reason,
      absl::StrCat("vcpu ", *request.vcpu, ": ", refused_in_a_row_,
                   " conversions were refused in a row; the guest does not take no for an answer"));
}

}  // namespace twinroot::host
