// Ranges, splits and counters of a VM's memory as messages say them (see convert.h).
#include "daemon/rpc/convert.h"

namespace twinroot::rpc {

void ToProto(mmu::GfnRange range, v1::MemoryRange* out) {
  out->set_gpa(range.first.value << mmu::kPageShift);
  out->set_size(range.count << mmu::kPageShift);
}

void ToProto(const mmu::SplitResult& split, v1::SplitCounts* out) {
  out->set_split_1g(split.split_1g);
  out->set_split_2m(split.split_2m);
  out->set_kept(split.kept);
}

void ToProto(const host::VmCounters& counters, v1::MemoryStats* out) {
  const mmu::AddressSpaceStats& memory = counters.memory;
  v1::MemoryStats::Faults* faults = out->mutable_faults();
  faults->set_fixed(memory.faults_fixed);
  faults->set_fast(memory.faults_fast);
  faults->set_spurious(memory.faults_spurious);
  faults->set_retry(memory.faults_retry);
  faults->set_mmio(memory.faults_mmio);
  faults->set_memory(memory.faults_memory);
  faults->set_failed(memory.faults_failed);
  v1::MemoryStats::Splits* splits = out->mutable_splits();
  splits->set_dirty_log(memory.splits_dirty_log);
  splits->set_request(memory.splits_request);
  splits->set_conversion(memory.splits_conversion);
  splits->set_fault(memory.splits_fault);
  splits->set_kept(memory.splits_kept);
  v1::MemoryStats::Collapses* collapses = out->mutable_collapses();
  collapses->set_dirty_log(memory.collapses_dirty_log);
  collapses->set_attributes(memory.collapses_attributes);
  collapses->set_nx_recovery(memory.collapses_nx);
  for (const mmu::MemoryKind kind : mmu::kAllKinds) {
    for (const mmu::Level level : {mmu::Level::k4K, mmu::Level::k2M, mmu::Level::k1G}) {
      v1::MemoryStats::Leaves* leaves = out->add_leaves();
      leaves->set_root(ToProto(kind));
      leaves->set_page_size(mmu::BytesPerEntry(level));
      leaves->set_count(memory.leaves[static_cast<int>(kind)][static_cast<int>(level) - 1]);
    }
  }
  out->set_table_pages(memory.table_pages);
  out->set_table_pages_budget(memory.table_pages_budget);
  out->set_flushes_range(memory.flushes_range);
  out->set_flushes_full(memory.flushes_full);
  out->set_invalidations(memory.invalidations);
  out->set_private_bytes(memory.private_frames_attribute << mmu::kPageShift);
  out->set_shared_bytes(memory.shared_frames_attribute << mmu::kPageShift);
  out->set_private_bytes_allocated(counters.private_bytes_allocated);
  out->set_shared_bytes_allocated(counters.shared_bytes_allocated);
  out->set_detached_tables(memory.detached_tables);
  out->set_mmio_cached(memory.mmio_cached);
  v1::MemoryStats::DirtyLog* log = out->mutable_dirty_log();
  log->set_state(counters.dirty_log_enabled ? v1::MemoryStats::DirtyLog::STATE_ON
                                            : v1::MemoryStats::DirtyLog::STATE_OFF);
  log->set_pages_harvested(counters.dirty_pages_harvested);
  log->set_vcpus_waiting(counters.vcpus_waiting_for_harvest);
}

}  // namespace twinroot::rpc
