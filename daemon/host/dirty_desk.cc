#include "daemon/host/dirty_desk.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/host/memory_events.h"
#include "daemon/host/page_runs.h"
#include "daemon/reasons.h"
#include "daemon/status_reason.h"

namespace twinroot::host {
namespace {

using mmu::DirtyPages;
using mmu::Gfn;
using mmu::GfnRange;

constexpr uint64_t kWordBits = 64;

// Every page of `range`, beginning with a whole word.
DirtyPages PagesOf(GfnRange range) {
  const uint64_t before = range.first.value % kWordBits;
  const GfnRange widened = {range.first - before, range.count + before};
  std::vector<uint64_t> words((widened.count + kWordBits - 1) / kWordBits, ~uint64_t{0});
  words.front() <<= before;
  return {widened, std::move(words)};
}

}  // namespace

DirtyDesk::DirtyDesk(std::string vm, uint32_t vcpus, mmu::GuestAddressSpace* engine,
                     std::function<void(vcpu::VcpuIndex)> resume_fault,
                     std::function<void(v1::Event)> publish)
    : vm_(std::move(vm)),
      vcpus_(vcpus),
      engine_(engine),
      resume_fault_(std::move(resume_fault)),
      publish_(std::move(publish)) {}

absl::Status DirtyDesk::CheckOn() const {
  if (enabled()) return absl::OkStatus();
  return WithReason(absl::FailedPreconditionError(
                        absl::StrCat("the dirty log of VM ", vm_, " is off: enable it first")),
                    reason::kDirtyLogOff, {{"vm", vm_}});
}

absl::StatusOr<mmu::SplitResult> DirtyDesk::Enable(mmu::DirtyLogOptions options) {
  std::lock_guard turn(turn_);
  if (enabled()) {
    return WithReason(absl::FailedPreconditionError(absl::StrCat(
                          "the dirty log of VM ", vm_, " is on already: disable it first")),
                      reason::kDirtyLogOn, {{"vm", vm_}});
  }
  options.ring_vcpus = options.ring_entries == 0 ? 0 : vcpus_;
  options_ = options;
  auto split = engine_->EnableDirtyLog(options);
  if (absl::IsFailedPrecondition(split.status())) {
    return WithReason(split.status(), reason::kDirtyLogUnsupported, {{"vm", vm_}});
  }
  if (split.ok()) {
    publish_(DirtyLogOnEvent(vm_, options));
    if (auto event = SplitEvent(vm_, *split, v1::PAGE_SIZE_CAUSE_DIRTY_LOG)) publish_(*event);
  }
  return split;
}

absl::StatusOr<mmu::RecoverResult> DirtyDesk::Disable() {
  std::lock_guard turn(turn_);
  if (absl::Status status = CheckOn(); !status.ok()) return status;
  auto recovered = engine_->DisableDirtyLog();
  if (!enabled()) {
    Release();
    publish_(DirtyLogOffEvent(vm_));
  }
  if (recovered.ok()) {
    if (auto event = CollapseEvent(vm_, *recovered, v1::PAGE_SIZE_CAUSE_DIRTY_LOG)) {
      publish_(*event);
    }
  }
  return recovered;
}

absl::Status DirtyDesk::EmptyRings() {
  if (options_.ring_entries == 0) return absl::OkStatus();
  for (uint32_t vcpu = 0; vcpu < vcpus_; ++vcpu) {
    auto pages = engine_->HarvestDirtyRing(vcpu, std::numeric_limits<size_t>::max());
    if (!pages.ok()) return pages.status();
    for (const Gfn gfn : *pages) engine_->MarkDirty({gfn, 1});
  }
  Release();
  return absl::OkStatus();
}

absl::StatusOr<std::vector<GfnRange>> DirtyDesk::Harvest(const std::vector<GfnRange>& ranges) {
  std::lock_guard turn(turn_);
  if (absl::Status status = CheckOn(); !status.ok()) return status;
  if (absl::Status status = EmptyRings(); !status.ok()) return status;
  std::vector<GfnRange> runs;
  uint64_t pages_found = 0;
  for (const GfnRange& range : ranges) {
    auto pages = engine_->HarvestDirty(range);
    if (!pages.ok()) {
      Mark(runs);
      return pages.status();
    }
    pages_found += AppendRuns(pages->range.first, pages->words, runs);
  }
  pages_harvested_ += pages_found;
  return runs;
}

absl::Status DirtyDesk::Clear(const std::vector<GfnRange>& ranges) {
  std::lock_guard turn(turn_);
  if (absl::Status status = CheckOn(); !status.ok()) return status;
  if (options_.clear != mmu::DirtyClear::kManual) {
    return WithReason(absl::FailedPreconditionError(absl::StrCat(
                          "the dirty log of VM ", vm_,
                          " is cleared by each harvest; enable it with manual clearing")),
                      reason::kDirtyLogNotManual, {{"vm", vm_}});
  }
  // Nothing is cleared if one range is wrong.
  for (const GfnRange& range : ranges) {
    if (auto runs = engine_->GetMemoryAttributes(range); !runs.ok()) return runs.status();
  }
  for (const GfnRange& range : ranges) {
    if (absl::Status status = engine_->ClearDirty(PagesOf(range)); !status.ok()) return status;
  }
  return absl::OkStatus();
}

void DirtyDesk::Mark(const std::vector<GfnRange>& ranges) {
  for (const GfnRange& range : ranges) engine_->MarkDirty(range);
}

bool DirtyDesk::Park(vcpu::VcpuIndex vcpu, uint64_t before) {
  std::lock_guard lock(parked_mutex_);
  if (harvests_.load() != before) return false;
  parked_.insert(vcpu);
  return true;
}

uint32_t DirtyDesk::vcpus_waiting() const {
  std::lock_guard lock(parked_mutex_);
  return static_cast<uint32_t>(parked_.size());
}

void DirtyDesk::Release() {
  std::set<vcpu::VcpuIndex> parked;
  {
    std::lock_guard lock(parked_mutex_);
    ++harvests_;
    parked.swap(parked_);
  }
  for (const vcpu::VcpuIndex vcpu : parked) resume_fault_(vcpu);
}

}  // namespace twinroot::host
