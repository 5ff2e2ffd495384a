// What VmImpl does with its memory for callers of the API.
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/host/memory_events.h"
#include "daemon/host/page_runs.h"
#include "daemon/host/vm_impl.h"
#include "daemon/reasons.h"
#include "daemon/status_reason.h"

namespace twinroot::host {

using mmu::kPageShift;
using mmu::MemoryKind;

absl::Status VmImpl::CheckContent(const mmu::AttributeChange& change) const {
  if (spec_.backend != BackendKind::kKvmNative || change.content != mmu::Content::kPreserve) {
    return absl::OkStatus();
  }
  return WithReason(
      absl::FailedPreconditionError(absl::StrCat(
          "bytes of VM ", spec_.name,
          " cannot be kept over a conversion: on kvm-native only the guest reaches its private "
          "memory; convert without preserve, and let the guest copy")),
      reason::kNotOnThisBackend, {{"vm", spec_.name}});
}

absl::StatusOr<Vm::ConversionResult> VmImpl::Change(mmu::AttributeChange change) {
  if (absl::Status status = CheckContent(change); !status.ok()) return status;
  return desk_->Api(std::move(change));
}

absl::StatusOr<mmu::AttributeChangePlan> VmImpl::PlanChange(mmu::AttributeChange change) const {
  if (absl::Status status = CheckContent(change); !status.ok()) return status;
  change.requester = mmu::Requester::kHost;
  return engine_->PlanMemoryAttributes(change);
}

absl::StatusOr<std::vector<mmu::AttributeRun>> VmImpl::Attributes(
    std::optional<mmu::GfnRange> range) const {
  if (!range.has_value()) return engine_->GetMemoryAttributes();
  return engine_->GetMemoryAttributes(*range);
}

absl::StatusOr<mmu::Translation> VmImpl::Translate(uint64_t gpa, MemoryKind alias) const {
  // The engine walks any address; a person who asks for one outside memory has mistyped it.
  if (auto runs = engine_->GetMemoryAttributes({mmu::Gfn(gpa >> kPageShift), 1}); !runs.ok()) {
    return runs.status();
  }
  if (absl::Status status = CheckTables(); !status.ok()) return status;
  return engine_->Translate(mmu::Gpa(gpa), alias);
}

absl::StatusOr<std::vector<mmu::TableImage>> VmImpl::DumpTables(MemoryKind root,
                                                                const mmu::TableImage* after,
                                                                size_t max) const {
  if (absl::Status status = CheckTables(); !status.ok()) return status;
  return engine_->DumpTables(root, after, max);
}

absl::Status VmImpl::CheckTables() const {
  if (spec_.mmu == mmu::MmuMode::kTdp) return absl::OkStatus();
  return WithReason(
      absl::FailedPreconditionError(absl::StrCat(
          "VM ", spec_.name,
          " runs on shadow tables, which go by its guest's linear addresses: there is no table by "
          "guest-physical address; create it with mmu tdp")),
      reason::kNotOnThisBackend, {{"vm", spec_.name}, {"needs_mmu", "tdp"}});
}

absl::Status VmImpl::AccessShared(uint64_t gpa, uint64_t size,
                                  absl::FunctionRef<absl::Status()> access) {
  if (size == 0) return absl::OkStatus();
  if (gpa + size < gpa || engine_->layout().HasStolenBits(mmu::Gpa(gpa))) {
    return WithReason(absl::InvalidArgumentError(absl::StrCat(
                          "0x", absl::Hex(gpa), " + ", size,
                          " is no range of guest memory; give addresses without the shared bit")),
                      reason::kInvalidRange);
  }
  const uint64_t first = gpa >> kPageShift;
  const uint64_t last = (gpa + size - 1) >> kPageShift;
  absl::Status accessed;
  absl::Status status =
      engine_->WithSharedPages({mmu::Gfn(first), last - first + 1}, [&] { accessed = access(); });
  status.Update(accessed);
  return status;
}

absl::StatusOr<std::string> VmImpl::ReadMemory(uint64_t gpa, uint64_t size) {
  std::string data(size, '\0');
  absl::Status status = AccessShared(
      gpa, size, [&] { return ram_->Read(gpa, MemoryKind::kShared, absl::MakeSpan(data)); });
  if (!status.ok()) return status;
  return data;
}

absl::Status VmImpl::WriteMemory(uint64_t gpa, const std::string& data) {
  bool touched = false;
  absl::Status status = AccessShared(gpa, data.size(), [&] {
    touched = true;
    return ram_->Write(gpa, MemoryKind::kShared, data);
  });
  if (touched) {
    // After the bytes: a harvest that takes the mark must find them.
    const uint64_t first = gpa >> kPageShift;
    const uint64_t last = (gpa + data.size() - 1) >> kPageShift;
    engine_->MarkDirty({mmu::Gfn(first), last - first + 1});
  }
  return status;
}

absl::Status VmImpl::CheckMemory(const std::vector<mmu::GfnRange>& ranges) const {
  for (const mmu::GfnRange& range : ranges) {
    if (absl::Status status = engine_->CheckMemory(range); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<mmu::SplitResult> VmImpl::SplitPages(const std::vector<mmu::GfnRange>& ranges,
                                                    mmu::Level target) {
  if (absl::Status status = CheckMemory(ranges); !status.ok()) return status;
  mmu::SplitResult all;
  for (const mmu::GfnRange& range : ranges) {
    const auto split = engine_->SplitPages(range, target);
    if (!split.ok()) return split.status();
    all.split_1g += split->split_1g;
    all.split_2m += split->split_2m;
    all.kept += split->kept;
  }
  if (auto event = SplitEvent(spec_.name, all, v1::PAGE_SIZE_CAUSE_API)) Publish(*event);
  return all;
}

absl::StatusOr<mmu::RecoverResult> VmImpl::RecoverPages(const std::vector<mmu::GfnRange>& ranges) {
  if (absl::Status status = CheckMemory(ranges); !status.ok()) return status;
  mmu::RecoverResult all;
  for (const mmu::GfnRange& range : ranges) {
    const auto recovered = engine_->RecoverPages(range);
    if (!recovered.ok()) return recovered.status();
    all.collapsed += recovered->collapsed;
  }
  if (auto event = CollapseEvent(spec_.name, all, v1::PAGE_SIZE_CAUSE_API)) Publish(*event);
  return all;
}

absl::StatusOr<mmu::PrefaultResult> VmImpl::Prefault(mmu::GfnRange range,
                                                     std::optional<MemoryKind> kind) {
  // A large page takes one page of its backing only, and the rest when it is touched: here all of
  // it is wanted now. What is converted meanwhile keeps an empty page too many, and no more.
  auto runs = engine_->GetMemoryAttributes(range);
  if (!runs.ok()) return runs.status();
  for (const mmu::AttributeRun& run : *runs) {
    if (kind.has_value() && run.kind != *kind) break;  // the engine stops there
    if (machine_->pages() != nullptr && run.kind == MemoryKind::kPrivate)
      continue;  // not the RAM's
    if (absl::Status status = ram_->Populate(run.range, run.kind); !status.ok()) {
      return mmu::PrefaultResult{0, std::move(status)};
    }
  }
  auto result = engine_->Prefault(range, kind, nullptr);
  if (!result.ok() || kind == MemoryKind::kShared) return result;
  for (const mmu::AttributeRun& run : *runs) {
    const mmu::GfnRange done = mmu::Intersection(run.range, {range.first, result->frames_done});
    if (run.kind != MemoryKind::kPrivate || done.empty() || !result->status.ok()) continue;
    result->status = machine_->Prefault(done);
  }
  return result;
}

absl::StatusOr<std::vector<mmu::GfnRange>> VmImpl::AgePages(mmu::GfnRange range) {
  auto aged = engine_->TestAndClearAccessed(range);
  if (absl::IsFailedPrecondition(aged.status())) {
    return WithReason(aged.status(), reason::kNotOnThisBackend, {{"vm", spec_.name}});
  }
  if (!aged.ok()) return aged.status();
  std::vector<mmu::GfnRange> runs;
  AppendRuns(aged->range.first, aged->words, runs);
  return runs;
}

absl::StatusOr<mmu::RecoverResult> VmImpl::RecoverNxPages(uint64_t max) {
  if (!spec_.nx_huge_pages) {
    return WithReason(
        absl::FailedPreconditionError(
            absl::StrCat("VM ", spec_.name,
                         " was made without nx_huge_pages ON: its pages stay large when executed")),
        reason::kNxHugePagesOff, {{"vm", spec_.name}});
  }
  auto recovered = engine_->RecoverNxHugePages(max);
  if (recovered.ok()) {
    if (auto event = CollapseEvent(spec_.name, *recovered, v1::PAGE_SIZE_CAUSE_API)) {
      Publish(*event);
    }
  }
  return recovered;
}

std::vector<mmu::GfnRange> VmImpl::Memory() const {
  std::vector<mmu::GfnRange> all;
  for (const mmu::AttributeRun& run : engine_->GetMemoryAttributes()) {
    if (!all.empty() && all.back().end() == run.range.first) {
      all.back().count += run.range.count;
    } else {
      all.push_back(run.range);
    }
  }
  return all;
}

absl::Status VmImpl::CheckAddMemslot(mmu::GfnRange range) const {
  return memslot_desk_->CheckAdd(range);
}
absl::Status VmImpl::AddMemslot(mmu::GfnRange range) { return memslot_desk_->Add(range); }
absl::Status VmImpl::RemoveMemslot(mmu::Gfn first) { return memslot_desk_->Remove(first); }
absl::Status VmImpl::MoveMemslot(mmu::Gfn first, mmu::Gfn new_first) {
  return memslot_desk_->Move(first, new_first);
}

absl::Status VmImpl::Audit() const {
  if (std::string why = engine_->bugged(); !why.empty()) return absl::InternalError(why);
  return engine_->Audit();
}

VmCounters VmImpl::counters() const {
  VmCounters counters;
  counters.memory = engine_->stats();
  counters.private_bytes_allocated = ram_->allocated_bytes(MemoryKind::kPrivate);
  if (machine_->pages() != nullptr) {
    // Nobody tells how much of its private memory the kernel has: at most what is mapped.
    for (const mmu::Level level : {mmu::Level::k4K, mmu::Level::k2M, mmu::Level::k1G}) {
      counters.private_bytes_allocated +=
          counters.memory
              .leaves[static_cast<int>(MemoryKind::kPrivate)][static_cast<int>(level) - 1] *
          mmu::BytesPerEntry(level);
    }
  }
  counters.shared_bytes_allocated = ram_->allocated_bytes(MemoryKind::kShared);
  counters.kvm_exits = machine_->exits();
  counters.pending_conversions = desk_->waiting();
  counters.throttled_conversions = desk_->throttled();
  counters.held_back_conversions = desk_->held_back();
  counters.dirty_log_enabled = dirty_desk_->enabled();
  counters.dirty_pages_harvested = dirty_desk_->pages_harvested();
  counters.vcpus_waiting_for_harvest = dirty_desk_->vcpus_waiting();
  counters.projection = machine_->projection_counts();
  counters.projection.kept_no_memory += ram_->leaves_without_memory();
  return counters;
}

}  // namespace twinroot::host
