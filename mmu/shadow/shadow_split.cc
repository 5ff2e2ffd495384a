#include "mmu/shadow/shadow_split.h"

#include <algorithm>
#include <vector>

#include "mmu/tables/table_pool.h"

namespace twinroot::mmu {
namespace {

constexpr size_t kMostAtOnce = 64;

class ShadowSplitter {
 public:
  ShadowSplitter(const Turn& turn, ShadowTables& tables, size_t budget)
      : turn_(turn),
        tables_(tables),
        budget_(budget),
        preload_(*tables.parts().pool),
        flush_(tables.NewFlush()) {}

  // 1 GiB at a time, from large to small: where it stops, nothing before is left undone.
  ShadowSplitResult Run(GfnRange range, Level target) {
    const uint64_t giant = FramesPerEntry(Level::k1G);
    for (Gfn at = range.first; at < range.end(); at = at - at.value % giant + giant) {
      if (target < Level::k1G && !SplitFrame(Level::k1G, at)) return Stop(at);
      if (target == Level::k1G || target == Level::k2M) continue;
      const Gfn end = std::min(range.end(), at - at.value % giant + giant);
      const uint64_t large = FramesPerEntry(Level::k2M);
      for (Gfn in = at; in < end; in = in - in.value % large + large) {
        if (!SplitFrame(Level::k2M, in)) return Stop(in);
      }
    }
    return Done();
  }

 private:
  ShadowSplitResult Stop(Gfn at) {
    result_.next = at;
    return Done();
  }
  ShadowSplitResult Done() {
    result_.flushes += flush_.needed();
    flush_.Finish(turn_);
    return result_;
  }

  // Every leaf of `level` that maps the frame. False: the budget is used up.
  bool SplitFrame(Level level, Gfn gfn) {
    const SlotList* const slots = tables_.reverse_map().Find(level, gfn);
    if (slots == nullptr) return true;
    // A split takes its slot from the list.
    const std::vector<EntrySlot*> all(slots->slots().begin(), slots->slots().end());
    for (EntrySlot* slot : all) {
      if (budget_ == 0) return false;
      if (!Reserve()) continue;
      --budget_;
      ShadowPage& page = *tables_.PageOf(*slot);
      Split(page, page.IndexOf(*slot));
      ++(level == Level::k1G ? result_.split_1g : result_.split_2m);
    }
    return true;
  }

  // A table in hand, and room for its page.
  bool Reserve() {
    if (preload_.empty()) {
      TablePool& pool = *tables_.parts().pool;
      if (!pool.Preload(std::min(kMostAtOnce, std::max<size_t>(budget_, 1)), preload_).ok() &&
          !pool.Preload(1, preload_).ok()) {
        ++result_.kept_for_tables;
        return false;
      }
    }
    if (tables_.pages() < tables_.config().most_pages) return true;
    ++result_.kept_for_room;
    return false;
  }

  // B8: children have level - 1, direct, access = the cached rights.
  void Split(ShadowPage& page, unsigned index) {
    const ShadowFormat format = tables_.config().format;
    const EptEntry leaf = page.slot(index).Load();
    const GuestRights rights = page.RightsAt(index);
    TableIdentity identity{page.GfnAt(index), {}};
    identity.role.level = Below(page.level());
    identity.role.access = RoleAccess(rights);
    identity.role.guest_mode = page.role().guest_mode;
    ShadowGrant grant = GrantOf(format, leaf);
    if (identity.role.level == Level::k4K && grant.nx_huge_page) {
      // B10: what was stripped from the large page alone comes back if the guest granted it.
      grant.execute = rights.execute();
      grant.nx_huge_page = false;
    }
    ShadowPage* child = tables_.Find(turn_, identity);
    if (child != nullptr) {
      FillGaps(*child, leaf.address(), rights, grant);
    } else {
      child =
          &tables_.Make(turn_, identity, ShadowTables::Sharing::kShared, preload_.Take(), flush_);
      tables_.Fill(turn_, *child, leaf.address(), grant);
    }
    tables_.ReplaceByLink(turn_, page, index, *child);
  }

  // A child that stood already keeps its leaves.
  void FillGaps(ShadowPage& child, Hpa page, GuestRights rights, const ShadowGrant& grant) {
    const uint64_t frames = FramesPerEntry(child.level());
    for (unsigned i = 0; i < kEntriesPerTable; ++i) {
      const SlotState state = tables_.StateAt(child, i);
      if (state == SlotState::kEmpty) {
        tables_.SetLeaf(
            turn_, child, i,
            {child.gfn() + i * frames, rights, page + i * BytesPerEntry(child.level()), grant},
            flush_);
      } else if (state == SlotState::kLink) {
        // What is below may map less than the large page did.
        flush_.Add();
      }
    }
  }

  const Turn& turn_;
  ShadowTables& tables_;
  size_t budget_;
  PreloadedTables preload_;
  ShadowFlush flush_;
  ShadowSplitResult result_;
};

}  // namespace

ShadowSplitResult SplitShadowPages(const Turn& turn, ShadowTables& tables, GfnRange range,
                                   Level target, size_t budget) {
  return ShadowSplitter(turn, tables, budget).Run(range, target);
}

}  // namespace twinroot::mmu
