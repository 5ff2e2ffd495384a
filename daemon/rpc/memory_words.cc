// Ranges, splits and counters of a VM's memory as messages say them (see convert.h).
#include <string>
#include <vector>

#include "daemon/rpc/convert.h"
#include "daemon/rpc/ept_words.h"

namespace twinroot::rpc {

void ToProto(mmu::GfnRange range, v1::MemoryRange* out) {
  out->set_gpa(range.first.value << mmu::kPageShift);
  out->set_size(range.count << mmu::kPageShift);
}

namespace {

template <typename Field>
void AddPages(const uint64_t (&leaves)[2][3], Field* out) {
  for (const mmu::MemoryKind kind : mmu::kAllKinds) {
    for (const mmu::Level level : {mmu::Level::k4K, mmu::Level::k2M, mmu::Level::k1G}) {
      const uint64_t count = leaves[static_cast<int>(kind)][static_cast<int>(level) - 1];
      if (count == 0) continue;
      v1::PageCount* pages = out->Add();
      pages->set_root(ToProto(kind));
      pages->set_page_size(mmu::BytesPerEntry(level));
      pages->set_count(count);
    }
  }
}

template <typename Field>
void AddRanges(const std::vector<mmu::GfnRange>& ranges, Field* out) {
  for (const mmu::GfnRange& range : ranges) ToProto(range, out->Add());
}

struct VetoWords {
  v1::Explanation::Veto veto;
  const char* text;
};
VetoWords WordsOf(mmu::LevelVeto veto) {
  switch (veto) {
    case mmu::LevelVeto::kNone:
      return {v1::Explanation::VETO_NONE, "nothing"};
    case mmu::LevelVeto::kCapability:
      return {v1::Explanation::VETO_CAPABILITY, "the processor has no larger pages"};
    case mmu::LevelVeto::kMemslot:
      return {v1::Explanation::VETO_MEMSLOT, "it would reach out of the memslot"};
    case mmu::LevelVeto::kAlignment:
      return {v1::Explanation::VETO_ALIGNMENT, "guest and host addresses are not aligned alike"};
    case mmu::LevelVeto::kBacking:
      return {v1::Explanation::VETO_BACKING, "the backing has no larger page here"};
    case mmu::LevelVeto::kExternal:
      return {v1::Explanation::VETO_EXTERNAL, "the tables that the host enforces take none"};
    case mmu::LevelVeto::kDirtyLog:
      return {v1::Explanation::VETO_DIRTY_LOG, "writes are logged by pages of 4K"};
    case mmu::LevelVeto::kNxMitigation:
      return {v1::Explanation::VETO_NX_MITIGATION, "instructions are fetched from it"};
    case mmu::LevelVeto::kAttributes:
      return {v1::Explanation::VETO_ATTRIBUTES, "attributes differ inside"};
    case mmu::LevelVeto::kMemTypes:
      return {v1::Explanation::VETO_MEM_TYPES, "memory types differ inside"};
  }
  return {v1::Explanation::VETO_UNSPECIFIED, ""};
}

}  // namespace

void ToProto(const mmu::AttributeChangeResult& result, v1::SetMemoryAttributesResponse* out) {
  AddRanges(result.converted, out->mutable_converted());
  AddRanges(result.redenied, out->mutable_redenied());
  for (const mmu::RangeChange& range : result.per_range) {
    v1::SetMemoryAttributesResponse::RangeResult* shown = out->add_per_range();
    shown->set_outcome(range.status.ok()
                           ? v1::SetMemoryAttributesResponse::RangeResult::OUTCOME_DONE
                           : v1::SetMemoryAttributesResponse::RangeResult::OUTCOME_REFUSED);
    shown->set_detail(std::string(range.status.message()));
    AddRanges(range.converted, shown->mutable_converted());
    AddRanges(range.redenied, shown->mutable_redenied());
  }
}

void ToProto(const mmu::AttributeChangePlan& plan, v1::SetMemoryAttributesResponse::Plan* out) {
  AddPages(plan.split.leaves, out->mutable_split());
  out->set_splits_kept(plan.splits_kept);
  out->set_tables_needed(plan.tables_needed);
  AddPages(plan.zapped.leaves, out->mutable_zapped());
  AddPages(plan.restricted.leaves, out->mutable_restricted());
  AddPages(plan.recovered.leaves, out->mutable_recovered());
  AddPages(plan.covered.leaves, out->mutable_covered());
  uint64_t flushes = 0;
  for (const auto& of_kind : plan.flushes) flushes += of_kind[0] + of_kind[1];
  out->set_flushes(flushes);
  out->set_bytes_discarded(plan.bytes_discarded);
  out->set_bytes_copied(plan.bytes_copied);
}

void ToProto(const mmu::Explanation& why, v1::Explanation* out) {
  out->set_mapping(!why.in_memslot ? v1::Explanation::MAPPING_NO_MEMORY
                   : why.may_map   ? v1::Explanation::MAPPING_ALLOWED
                                   : v1::Explanation::MAPPING_OTHER_KIND);
  if (why.may_map) {
    const VetoWords words = WordsOf(why.veto);
    out->set_allowed_page_size(mmu::BytesPerEntry(why.allowed));
    out->set_veto(words.veto);
    out->set_veto_text(words.text);
  }
  out->set_recoverable(why.smaller_table);
  out->set_denied(DeniedInWords(why.attributes.denied));
  out->set_dirty_log(why.dirty_log);
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
  AddPages(memory.leaves, out->mutable_leaves());
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
