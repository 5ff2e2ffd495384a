// What changes of the VM do to its shadow tables: all of it the Turn's.
#include <bit>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "mmu/shadow/shadow_audit.h"
#include "mmu/shadow/shadow_split.h"
#include "mmu/vm/address_space_state.h"
#include "mmu/vm/shadow_mmu.h"

namespace twinroot::mmu {

void ShadowMmu::Finish(const Turn& turn, ShadowFlush& flush) {
  flush.Finish(turn);
  CountPages();
}

void ShadowMmu::CountPages() {
  pages_.store(tables_.pages(), std::memory_order_relaxed);
  leaves_.store(tables_.reverse_map().mappings(), std::memory_order_relaxed);
}

void ShadowMmu::Zap(const Turn& turn, absl::Span<const GfnRange> ranges) {
  ShadowFlush flush = tables_.NewFlush();
  for (const GfnRange& range : ranges) {
    tables_.ZapRange(turn, range, flush);
    // What the guest's tables there said goes with their bytes.
    tables_.ZapTablesIn(turn, range, flush);
  }
  Finish(turn, flush);
}

void ShadowMmu::MemoryWritten(GfnRange range) {
  const Turn turn(vm_.turn_mutex);
  ShadowFlush flush = tables_.NewFlush();
  tables_.ZapTablesIn(turn, range, flush);
  Finish(turn, flush);
}

void ShadowMmu::ZapAll(const Turn& turn) {
  ShadowFlush flush = tables_.NewFlush();
  tables_.InvalidateAll(turn, flush);
  Finish(turn, flush);
}

size_t ShadowMmu::Reclaim(const Turn& turn, size_t most) {
  const size_t before = tables_.pages();
  ShadowFlush flush = tables_.NewFlush();
  tables_.ZapObsolete(turn, most, flush);
  Finish(turn, flush);
  return before - tables_.pages();
}

void ShadowMmu::WithholdWrite(const Turn& turn, GfnRange range, Level smallest) {
  ShadowFlush flush = tables_.NewFlush();
  tables_.WriteProtectRange(turn, range, smallest, flush);
  Finish(turn, flush);
}

void ShadowMmu::WithholdWrite(const Turn& turn, Gfn first, absl::Span<const uint64_t> words) {
  ShadowFlush flush = tables_.NewFlush();
  for (size_t i = 0; i < words.size(); ++i) {
    for (uint64_t left = words[i]; left != 0; left &= left - 1) {
      tables_.WriteProtect(turn, first + i * 64 + static_cast<uint64_t>(std::countr_zero(left)),
                           flush);
    }
  }
  Finish(turn, flush);
}

void ShadowMmu::Split(const Turn& turn, GfnRange range, Level target, VmCount reason,
                      SplitResult& result) {
  const ShadowSplitResult split = SplitShadowPages(turn, tables_, range, target, ~size_t{0});
  const uint64_t kept = split.kept_for_tables + split.kept_for_room;
  result.split_1g += split.split_1g;
  result.split_2m += split.split_2m;
  result.kept += kept;
  vm_.counts.Add(reason, split.split_1g + split.split_2m);
  vm_.counts.Add(VmCount::kSplitKeptForTables, kept);
  CountPages();
}

uint64_t ShadowMmu::Recover(const Turn& turn, GfnRange range, VmCount reason) {
  std::vector<ShadowPage*> small;
  for (const ShadowPage& page : tables_.all()) {
    if (!page.role().direct || page.level() != Level::k4K || page.roots != 0 ||
        tables_.Obsolete(page) || !range.Contains(page.gfn())) {
      continue;
    }
    const std::optional<Page> backing = At(turn, page.gfn());
    if (backing && backing->largest > Level::k4K) small.push_back(tables_.PageOf(page.slot(0)));
  }
  ShadowFlush flush = tables_.NewFlush();
  for (ShadowPage* page : small) tables_.Zap(turn, *page, flush);
  Finish(turn, flush);
  vm_.counts.Add(reason, small.size());
  return small.size();
}

void ShadowMmu::Age(const Turn& turn, GfnRange range, const std::function<void(GfnRange)>& page) {
  ShadowFlush flush = tables_.NewFlush();
  tables_.TestAndClearAccessed(turn, range, page, flush);
  Finish(turn, flush);
}

std::optional<std::string> ShadowMmu::Audit(const Turn& turn) {
  if (auto wrong = AuditShadow(turn, tables_)) return wrong;
  const ShadowFormat format = tables_.config().format;
  for (const Level level : {Level::k4K, Level::k2M, Level::k1G}) {
    for (const Gfn gfn : tables_.reverse_map().MappedIn(level, vm_.everything)) {
      const std::string name = absl::StrCat("shadow leaf of gfn 0x", absl::Hex(gfn.value),
                                            " at level ", static_cast<int>(level));
      const GfnRange frames{gfn, FramesPerEntry(level)};
      const Memslot* slot = vm_.slots.Find(turn, gfn);
      if (slot == nullptr || !slot->range.Contains(frames.end() - 1)) {
        return name + " has no memslot";
      }
      const MemoryAttributes attributes = vm_.attributes.Get(turn, gfn);
      if (level > Level::k4K && !vm_.attributes.UniformAt(turn, gfn, level)) {
        return name + " stands over mixed attributes";
      }
      const std::optional<Pfn> pfn = BackingOf(*slot, gfn, attributes.kind);
      for (EntrySlot* at : tables_.reverse_map().Find(level, gfn)->slots()) {
        const EptEntry entry = at->Load();
        if (!pfn || entry.address() != HpaOf(*pfn)) {
          return name + " leads to another frame than its memslot and attribute name";
        }
        const ShadowGrant grant = GrantOf(format, entry);
        if ((grant.write && !attributes.allowed().write()) ||
            (grant.execute && !attributes.allowed().fetch())) {
          return name + " grants what its attributes deny";
        }
      }
    }
  }
  return std::nullopt;
}

}  // namespace twinroot::mmu
