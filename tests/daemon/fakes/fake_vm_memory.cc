// The fake's dirty log and its page sizes: a flag for each frame, and canned results.
#include <algorithm>
#include <utility>

#include "tests/daemon/fakes/fake_vm.h"

namespace twinroot::fakes {

void FakeVm::Dirty(mmu::GfnRange range) {
  std::lock_guard lock(mutex_);
  std::fill_n(dirty_.begin() + static_cast<int64_t>(range.first.value), range.count, true);
}

void FakeVm::FailNextMemoryCall(absl::Status status) {
  std::lock_guard lock(mutex_);
  next_memory_call_ = std::move(status);
}

mmu::DirtyLogOptions FakeVm::log_options() const {
  std::lock_guard lock(mutex_);
  return log_options_;
}

std::vector<mmu::GfnRange> FakeVm::last_ranges() const {
  std::lock_guard lock(mutex_);
  return last_ranges_;
}

mmu::Level FakeVm::last_target() const {
  std::lock_guard lock(mutex_);
  return last_target_;
}

absl::Status FakeVm::CheckMemoryCall(const std::vector<mmu::GfnRange>& ranges) const {
  if (!next_memory_call_.ok()) return std::exchange(next_memory_call_, absl::OkStatus());
  for (const mmu::GfnRange& range : ranges) {
    if (!Inside(range.first.value * mmu::kPageSize, range.count * mmu::kPageSize)) {
      return absl::InvalidArgumentError("a range lies outside the VM's memory");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<mmu::SplitResult> FakeVm::EnableDirtyLog(const mmu::DirtyLogOptions& options) {
  std::lock_guard lock(mutex_);
  if (absl::Status status = CheckMemoryCall({}); !status.ok()) return status;
  log_ = log_options_ = options;
  return mmu::SplitResult{1, 2, 3};
}

absl::StatusOr<mmu::RecoverResult> FakeVm::DisableDirtyLog() {
  std::lock_guard lock(mutex_);
  if (absl::Status status = CheckMemoryCall({}); !status.ok()) return status;
  log_.reset();
  return mmu::RecoverResult{4};
}

absl::StatusOr<std::vector<mmu::GfnRange>> FakeVm::HarvestDirty(
    std::optional<mmu::GfnRange> range) {
  std::lock_guard lock(mutex_);
  const mmu::GfnRange asked = range.value_or(mmu::GfnRange{mmu::Gfn(0), dirty_.size()});
  if (absl::Status status = CheckMemoryCall({asked}); !status.ok()) return status;
  std::vector<mmu::GfnRange> runs;
  for (mmu::Gfn gfn = asked.first; gfn < asked.end(); gfn = gfn + 1) {
    if (!dirty_[gfn.value]) continue;
    dirty_[gfn.value] = log_options_.clear == mmu::DirtyClear::kManual;
    if (!runs.empty() && runs.back().end() == gfn) {
      ++runs.back().count;
    } else {
      runs.push_back({gfn, 1});
    }
  }
  return runs;
}

absl::Status FakeVm::ClearDirty(const std::vector<mmu::GfnRange>& ranges) {
  std::lock_guard lock(mutex_);
  if (absl::Status status = CheckMemoryCall(ranges); !status.ok()) return status;
  last_ranges_ = ranges;
  for (const mmu::GfnRange& range : ranges) {
    std::fill_n(dirty_.begin() + static_cast<int64_t>(range.first.value), range.count, false);
  }
  return absl::OkStatus();
}

void FakeVm::UndoHarvest(const std::vector<mmu::GfnRange>& runs) {
  for (const mmu::GfnRange& run : runs) Dirty(run);
}

absl::StatusOr<mmu::SplitResult> FakeVm::SplitPages(const std::vector<mmu::GfnRange>& ranges,
                                                    mmu::Level target) {
  std::lock_guard lock(mutex_);
  if (absl::Status status = CheckMemoryCall(ranges); !status.ok()) return status;
  last_ranges_ = ranges;
  last_target_ = target;
  return mmu::SplitResult{5, 6, 7};
}

absl::StatusOr<mmu::RecoverResult> FakeVm::RecoverPages(const std::vector<mmu::GfnRange>& ranges) {
  std::lock_guard lock(mutex_);
  if (absl::Status status = CheckMemoryCall(ranges); !status.ok()) return status;
  last_ranges_ = ranges;
  return mmu::RecoverResult{8};
}

void FakeVm::StopPrefaultAt(mmu::Gfn gfn, absl::Status why) {
  std::lock_guard lock(mutex_);
  prefault_end_ = gfn;
  prefault_stop_ = std::move(why);
}

std::optional<mmu::MemoryKind> FakeVm::last_kind() const {
  std::lock_guard lock(mutex_);
  return last_kind_;
}

absl::StatusOr<mmu::PrefaultResult> FakeVm::Prefault(mmu::GfnRange range,
                                                     std::optional<mmu::MemoryKind> kind) {
  std::lock_guard lock(mutex_);
  if (absl::Status status = CheckMemoryCall({range}); !status.ok()) return status;
  last_kind_ = kind;
  if (prefault_end_ >= range.end()) return mmu::PrefaultResult{range.count, absl::OkStatus()};
  return mmu::PrefaultResult{prefault_end_ - range.first, prefault_stop_};
}

absl::Status FakeVm::CheckAddMemslot(mmu::GfnRange) const {
  std::lock_guard lock(mutex_);
  return CheckMemoryCall({});
}

void FakeVm::SetTables(size_t tables) {
  std::lock_guard lock(mutex_);
  tables_ = tables;
}

uint64_t FakeVm::last_max() const {
  std::lock_guard lock(mutex_);
  return last_max_;
}

// Table i: at 0x1000 * i, of gfn i.
absl::StatusOr<std::vector<mmu::TableImage>> FakeVm::DumpTables(mmu::MemoryKind root,
                                                                const mmu::TableImage* after,
                                                                size_t max) const {
  std::lock_guard lock(mutex_);
  if (absl::Status status = CheckMemoryCall({}); !status.ok()) return status;
  std::vector<mmu::TableImage> tables;
  for (size_t i = after == nullptr ? 0 : after->first.value + 1; i < tables_ && tables.size() < max;
       ++i) {
    mmu::TableImage& table = tables.emplace_back();
    table.hpa = mmu::Hpa(i * mmu::kPageSize);
    table.level = i == 0 ? mmu::Level::k512G : mmu::Level::k4K;
    table.first = mmu::Gfn(i);
    table.hw_first = mmu::HwGfn(i);
    table.entries.fill(root == mmu::MemoryKind::kPrivate ? 0x0102030405060708 : i);
  }
  return tables;
}

mmu::EptPointer FakeVm::ept_pointer(mmu::MemoryKind root) const {
  return mmu::EptPointer(root == mmu::MemoryKind::kPrivate ? 0x101e : 0x201e);
}

// Accessed is what was written.
absl::StatusOr<std::vector<mmu::GfnRange>> FakeVm::AgePages(mmu::GfnRange range) {
  std::lock_guard lock(mutex_);
  if (absl::Status status = CheckMemoryCall({range}); !status.ok()) return status;
  std::vector<mmu::GfnRange> runs;
  for (mmu::Gfn gfn = range.first; gfn < range.end(); gfn = gfn + 1) {
    if (!dirty_[gfn.value]) continue;
    dirty_[gfn.value] = false;
    if (!runs.empty() && runs.back().end() == gfn) {
      ++runs.back().count;
    } else {
      runs.push_back({gfn, 1});
    }
  }
  return runs;
}

absl::StatusOr<mmu::RecoverResult> FakeVm::RecoverNxPages(uint64_t max) {
  std::lock_guard lock(mutex_);
  if (absl::Status status = CheckMemoryCall({}); !status.ok()) return status;
  last_max_ = max;
  return mmu::RecoverResult{9};
}

absl::Status FakeVm::AddMemslot(mmu::GfnRange range) {
  std::lock_guard lock(mutex_);
  last_ranges_ = {range};
  return CheckMemoryCall({});
}

absl::Status FakeVm::RemoveMemslot(mmu::Gfn first) {
  std::lock_guard lock(mutex_);
  last_ranges_ = {{first, 0}};
  return CheckMemoryCall({});
}

absl::Status FakeVm::MoveMemslot(mmu::Gfn first, mmu::Gfn new_first) {
  std::lock_guard lock(mutex_);
  last_ranges_ = {{first, 0}, {new_first, 0}};
  return CheckMemoryCall({});
}

std::vector<mmu::GfnRange> FakeVm::Memory() const {
  return {{mmu::Gfn(0), spec_.memory_bytes / mmu::kPageSize}};
}

absl::Status FakeVm::Audit() const {
  std::lock_guard lock(mutex_);
  return CheckMemoryCall({});
}

}  // namespace twinroot::fakes
