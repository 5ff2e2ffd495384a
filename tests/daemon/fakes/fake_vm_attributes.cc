// The fake's attributes: a kind and denials for each frame.
#include <algorithm>
#include <utility>

#include "tests/daemon/fakes/fake_vm.h"

namespace twinroot::fakes {
namespace {

using mmu::Gfn;
using mmu::GfnRange;
using mmu::MemoryKind;

void Append(Gfn gfn, std::vector<GfnRange>& ranges) {
  if (!ranges.empty() && ranges.back().end() == gfn) {
    ++ranges.back().count;
  } else {
    ranges.push_back({gfn, 1});
  }
}

// Ordered, neighbours joined.
std::vector<GfnRange> Joined(std::vector<GfnRange> ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<GfnRange> joined;
  for (const GfnRange& range : ranges) {
    if (!joined.empty() && joined.back().end() == range.first) {
      joined.back().count += range.count;
    } else {
      joined.push_back(range);
    }
  }
  return joined;
}

}  // namespace

void FakeVm::RefuseChangesOf(Gfn gfn) {
  std::lock_guard lock(mutex_);
  refused_ = gfn;
}

void FakeVm::SetExplanation(const mmu::Explanation& why) {
  std::lock_guard lock(mutex_);
  why_ = why;
}

mmu::Access FakeVm::DeniedOf(Gfn gfn) const {
  const auto found = denied_.find(gfn.value);
  return found == denied_.end() ? mmu::Access::None() : found->second;
}

absl::Status FakeVm::CheckChange(const mmu::AttributeChange& change) const {
  for (const GfnRange& range : change.ranges) {
    if (!Inside(range.first.value * mmu::kPageSize, range.count * mmu::kPageSize)) {
      return absl::InvalidArgumentError("a range lies outside the VM's memory");
    }
    if (refused_ && range.Contains(*refused_) &&
        change.atomicity == mmu::Atomicity::kAllOrNothing) {
      return absl::ResourceExhaustedError("the host has no memory");
    }
  }
  if (change.kind == MemoryKind::kShared && change.content == mmu::Content::kPreserve) {
    return absl::PermissionDeniedError("keeping bytes would disclose them: use DESTROY");
  }
  return absl::OkStatus();
}

mmu::AttributeChangeResult FakeVm::Make(const mmu::AttributeChange& change) {
  mmu::AttributeChangeResult result;
  for (const GfnRange& range : change.ranges) {
    mmu::RangeChange done;
    if (refused_ && range.Contains(*refused_)) {
      done.status = absl::ResourceExhaustedError("the host has no memory");
      result.per_range.push_back(std::move(done));
      continue;
    }
    for (Gfn gfn = range.first; gfn < range.end(); gfn = gfn + 1) {
      if (change.kind && shared_[gfn.value] != (*change.kind == MemoryKind::kShared)) {
        shared_[gfn.value] = *change.kind == MemoryKind::kShared;
        Append(gfn, done.converted);
      }
      if (change.deny && !(DeniedOf(gfn) == *change.deny)) {
        denied_[gfn.value] = *change.deny;
        Append(gfn, done.redenied);
      }
    }
    result.converted.insert(result.converted.end(), done.converted.begin(), done.converted.end());
    result.redenied.insert(result.redenied.end(), done.redenied.begin(), done.redenied.end());
    result.per_range.push_back(std::move(done));
  }
  result.converted = Joined(std::move(result.converted));
  result.redenied = Joined(std::move(result.redenied));
  return result;
}

absl::StatusOr<mmu::AttributeChangePlan> FakeVm::PlanChange(mmu::AttributeChange change) const {
  std::lock_guard lock(mutex_);
  if (absl::Status status = CheckChange(change); !status.ok()) return status;
  mmu::AttributeChangePlan plan;
  plan.result.converted = Joined(change.ranges);
  plan.split.At(MemoryKind::kPrivate, mmu::Level::k2M) = 1;
  plan.tables_needed = 2;
  plan.zapped.At(MemoryKind::kPrivate, mmu::Level::k4K) = 3;
  plan.restricted.At(MemoryKind::kShared, mmu::Level::k4K) = 4;
  plan.flushes[0][0] = 5;
  plan.flushes[1][0] = 6;
  plan.bytes_discarded = 7;
  plan.bytes_copied = 8;
  return plan;
}

absl::StatusOr<host::Vm::ConversionResult> FakeVm::Change(mmu::AttributeChange change) {
  ConversionResult result;
  {
    std::unique_lock lock(mutex_);
    ++converts_;
    released_.wait(lock, [this] { return !hold_; });
    if (!next_convert_.ok()) return std::exchange(next_convert_, absl::OkStatus());
    if (absl::Status status = CheckChange(change); !status.ok()) return status;
    static_cast<mmu::AttributeChangeResult&>(result) = Make(change);
    if (!result.converted.empty()) result.id = next_id_++;
  }
  for (const GfnRange& range : result.converted) {
    v1::Event event;
    event.set_vm(spec_.name);
    v1::Conversion* conversion = event.mutable_conversion();
    conversion->set_id(result.id);
    conversion->set_gpa(range.first.value * mmu::kPageSize);
    conversion->set_size(range.count * mmu::kPageSize);
    conversion->set_direction(change.kind == MemoryKind::kShared
                                  ? v1::Conversion::DIRECTION_TO_SHARED
                                  : v1::Conversion::DIRECTION_TO_PRIVATE);
    conversion->set_cause(v1::Conversion::CAUSE_API);
    conversion->set_decision(v1::Conversion::DECISION_APPLIED);
    conversion->set_decider(v1::Conversion::DECIDER_ORCHESTRATOR);
    conversion->mutable_latency()->set_nanos(20'000);
    journal_->Append(std::move(event));
  }
  return result;
}

}  // namespace twinroot::fakes
