// A bounded walk over one root: every entry that touches a range of frames, each table's entry
// before and again after what is below it. The caller steers; the cursor changes nothing and never
// drops the lock under its caller.
//
//   for (Cursor at(lock, pool, root, range); at.valid();) {
//     Table* child = at.returned() ? nullptr : at.Child(at.entry());
//     if (child != nullptr) at.Descend(*child); else at.Next();
//   }
#ifndef TWINROOT_MMU_TABLES_CURSOR_H_
#define TWINROOT_MMU_TABLES_CURSOR_H_

#include <cstdint>

#include "mmu/tables/mmu_lock.h"
#include "mmu/tables/root.h"
#include "mmu/tables/table_pool.h"
#include "mmu/types/gfn_range.h"

namespace twinroot::mmu {

class Cursor {
 public:
  // `range` lies inside what the root maps; the lock is held as long as the cursor lives.
  Cursor(const MmuLock::Held&, TablePool& pool, const Root& root, GfnRange range)
      : pool_(pool),
        at_(root.FrameOf(range.first)),
        end_(root.FrameOf(range.end())),
        table_(range.empty() ? nullptr : root.table) {}

  bool valid() const { return table_ != nullptr; }
  Table& table() const { return *table_; }
  Level level() const { return table_->level(); }
  uint64_t index() const { return EptIndex(at_, level()); }
  // First frame that the entry covers; may lie before the range.
  HwGfn frame() const { return at_ - at_.value % FramesPerEntry(level()); }
  // The slot as it stands now: load once, then decide.
  EptEntry entry() const { return table_->slots[index()].Load(); }
  // The cursor has come back from the table below this entry.
  bool returned() const { return returned_; }

  // The table that `entry` links here; null if it is empty, frozen, a leaf, or links a page that
  // is not the pool's.
  Table* Child(EptEntry entry) const {
    return entry.present() && !entry.IsLeaf(level()) ? pool_.At(entry.address()) : nullptr;
  }

  // Into the table below, which Child gave.
  void Descend(Table& child) {
    table_ = &child;
    returned_ = false;
  }

  // On to the next entry, or back to the parent's entry when this table has no more in the range.
  void Next() {
    const HwGfn next = frame() + FramesPerEntry(level());
    returned_ = index() == kEntriesPerTable - 1 || next >= end_;
    if (returned_) {
      table_ = table_->parent;
    } else {
      at_ = next;
    }
  }

 private:
  TablePool& pool_;
  HwGfn at_;
  HwGfn end_;
  Table* table_;
  bool returned_ = false;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TABLES_CURSOR_H_
