#include "daemon/host/memory_events.h"

#include "absl/strings/str_cat.h"

namespace twinroot::host {
namespace {

v1::Event EventOf(const std::string& vm) {
  v1::Event event;
  event.set_vm(vm);
  return event;
}

v1::MemoryKind WordOf(mmu::MemoryKind kind) {
  return kind == mmu::MemoryKind::kShared ? v1::MEMORY_KIND_SHARED : v1::MEMORY_KIND_PRIVATE;
}

v1::EnableDirtyLogRequest::Mode WordOf(mmu::DirtyLogMode mode) {
  switch (mode) {
    case mmu::DirtyLogMode::kWriteProtect:
      return v1::EnableDirtyLogRequest::MODE_WRITE_PROTECT;
    case mmu::DirtyLogMode::kDirtyBit:
      return v1::EnableDirtyLogRequest::MODE_DIRTY_BIT;
    case mmu::DirtyLogMode::kPml:
      return v1::EnableDirtyLogRequest::MODE_PML;
  }
  return v1::EnableDirtyLogRequest::MODE_UNSPECIFIED;
}

}  // namespace

v1::Event AttributesEvent(const std::string& vm, mmu::GfnRange range,
                          std::optional<mmu::MemoryKind> kind, mmu::Access denied) {
  v1::Event event = EventOf(vm);
  v1::AttributesChanged* changed = event.mutable_attributes_changed();
  changed->set_gpa(range.first.value << mmu::kPageShift);
  changed->set_size(range.count << mmu::kPageShift);
  if (kind.has_value()) changed->set_kind(WordOf(*kind));
  changed->set_denied(
      absl::StrCat(denied.read() ? "r" : "", denied.write() ? "w" : "", denied.fetch() ? "x" : ""));
  return event;
}

v1::Event FaultEvent(const std::string& vm, vcpu::VcpuIndex vcpu, mmu::Gpa gpa,
                     mmu::MemoryKind alias, v1::MemoryFault::Reason reason) {
  v1::Event event = EventOf(vm);
  v1::MemoryFault* fault = event.mutable_memory_fault();
  fault->set_vcpu(vcpu);
  fault->set_gpa(gpa.value);
  fault->set_alias(WordOf(alias));
  fault->set_reason(reason);
  return event;
}

std::optional<v1::Event> SplitEvent(const std::string& vm, const mmu::SplitResult& split,
                                    v1::PageSizeCause cause) {
  if (split.split_1g == 0 && split.split_2m == 0 && split.kept == 0) return std::nullopt;
  v1::Event event = EventOf(vm);
  v1::SplitSummary* summary = event.mutable_split_summary();
  summary->mutable_splits()->set_split_1g(split.split_1g);
  summary->mutable_splits()->set_split_2m(split.split_2m);
  summary->mutable_splits()->set_kept(split.kept);
  summary->set_cause(cause);
  return event;
}

std::optional<v1::Event> CollapseEvent(const std::string& vm, const mmu::RecoverResult& recovered,
                                       v1::PageSizeCause cause) {
  if (recovered.collapsed == 0) return std::nullopt;
  v1::Event event = EventOf(vm);
  event.mutable_collapse_summary()->set_collapsed(recovered.collapsed);
  event.mutable_collapse_summary()->set_cause(cause);
  return event;
}

v1::Event DirtyLogOnEvent(const std::string& vm, const mmu::DirtyLogOptions& options) {
  v1::Event event = EventOf(vm);
  v1::DirtyLogState* state = event.mutable_dirty_log_state();
  state->set_state(v1::DirtyLogState::STATE_ON);
  state->set_mode(WordOf(options.mode));
  state->set_manual_clear(options.clear == mmu::DirtyClear::kManual);
  state->set_ring_entries(options.ring_entries);
  return event;
}

v1::Event DirtyLogOffEvent(const std::string& vm) {
  v1::Event event = EventOf(vm);
  event.mutable_dirty_log_state()->set_state(v1::DirtyLogState::STATE_OFF);
  return event;
}

}  // namespace twinroot::host
