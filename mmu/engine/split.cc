#include "mmu/engine/split.h"

#include <algorithm>

#include "mmu/engine/make_entry.h"
#include "mmu/tables/cursor.h"

namespace twinroot::mmu {
namespace {

// Tables taken from the pool at a time: not more than the range is likely to need, for a split at
// one frame is one table or two.
constexpr size_t kMostAtOnce = 64;
constexpr size_t TablesAtOnce(GfnRange range) {
  return std::clamp<size_t>(range.count / FramesPerEntry(Level::k2M), 1, kMostAtOnce);
}

class Splitter {
 public:
  Splitter(const Turn& turn, TablePool& pool, EntryChange& change, const Root& root, GfnRange range)
      : turn_(turn),
        pool_(pool),
        change_(change),
        root_(root),
        tables_at_once_(TablesAtOnce(range)),
        preload_(pool),
        at_(turn, pool, root, range) {}

  void Run(Level target, SplitCounts& counts, OnKept on_kept) {
    while (at_.valid()) {
      if (!at_.returned() && at_.level() > target) {
        const EptEntry entry = EntryChange::Settle(turn_, at_.slot());
        const SlotState state = StateOf(entry, at_.level());
        if (state == SlotState::kLink && at_.Descend(entry)) continue;
        if (state == SlotState::kLeaf) {
          if (Split(entry)) {
            ++(at_.level() == Level::k1G ? counts.from_1g : counts.from_2m);
            continue;  // into the new table, which may hold what is still too large
          }
          ++counts.kept;
          on_kept(at_.frame(), at_.level());
        }
        at_.Next();
      } else {
        // Below the target nothing is too large; a whole table needs no look.
        at_.Next(at_.returned() ? 1 : at_.entries_left());
      }
    }
  }

 private:
  // True: the slot holds a link, or something else that is to be looked at again.
  bool Split(EptEntry leaf) {
    if (preload_.empty() && !pool_.Preload(tables_at_once_, preload_).ok() &&
        (tables_at_once_ == 1 || !pool_.Preload(1, preload_).ok())) {
      return false;
    }
    const Gfn gfn = root_.GfnOf(at_.frame());
    const Table& table = *pool_.At(at_.table_hpa());
    Table& child = preload_.Take();
    if (root_.external != nullptr) return SplitExternal(table, leaf, child, gfn);
    if (SplitLeaf(turn_, change_, root_, table, at_.slot(), leaf, child, gfn) ==
        ChangeResult::kRaced) {
      preload_.Return(child);
    }
    return true;
  }

  bool SplitExternal(const Table& table, EptEntry leaf, Table& child, Gfn gfn) {
    EntrySlot& slot = at_.slot();
    if (change_.Freeze(turn_, slot, leaf) == ChangeResult::kRaced) {
      preload_.Return(child);
      return true;
    }
    const bool split = root_.external->Split(gfn, at_.level()).ok();
    if (split) {
      change_.PublishSplit(root_, table, slot, child, gfn, MakeSplitLeaf(leaf, at_.level()));
    } else {
      change_.Restore(slot, leaf);
      preload_.Return(child);
    }
    return split;
  }

  const Turn& turn_;
  TablePool& pool_;
  EntryChange& change_;
  const Root& root_;
  const size_t tables_at_once_;
  PreloadedTables preload_;
  Cursor at_;
};

}  // namespace

ChangeResult SplitLeaf(const MmuRead& read, EntryChange& change, const Root& root,
                       const Table& table, EntrySlot& slot, EptEntry leaf, Table& child, Gfn gfn) {
  return change.Split(read, root, table, slot, leaf, child, gfn,
                      MakeSplitLeaf(leaf, table.level()));
}

void SplitRange(const Turn& turn, TablePool& pool, EntryChange& change, const Root& root,
                GfnRange range, Level target, SplitCounts& counts, OnKept on_kept) {
  Splitter(turn, pool, change, root, range).Run(target, counts, on_kept);
}

}  // namespace twinroot::mmu
