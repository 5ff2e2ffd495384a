// A bounded walk over one root: every entry that touches a range of frames, each table's entry
// before and again after what is below it. The caller steers; the cursor changes nothing.
//
//   for (Cursor at(read, pool, root, range); at.valid();) {
//     if (at.returned() || at.state() != SlotState::kLink || !at.Descend()) at.Next();
//   }
#ifndef TWINROOT_MMU_TABLES_CURSOR_H_
#define TWINROOT_MMU_TABLES_CURSOR_H_

#include <algorithm>
#include <cstdint>

#include "mmu/tables/epoch.h"
#include "mmu/tables/root.h"
#include "mmu/tables/table_pool.h"
#include "mmu/types/gfn_range.h"

namespace twinroot::mmu {

class Cursor {
 public:
  // `range` lies inside what the root maps; the guard or turn is held as long as the cursor lives.
  Cursor(const MmuRead&, TablePool& pool, const Root& root, GfnRange range)
      : pool_(pool),
        begin_(root.FrameOf(range.first)),
        at_(begin_),
        end_(root.FrameOf(range.end())),
        top_(root.table->level()),
        level_(top_),
        valid_(!range.empty()) {
    slots_[static_cast<int>(level_)] = root.table->slots;
  }

  bool valid() const { return valid_; }
  Level level() const { return level_; }
  uint64_t index() const { return EptIndex(at_, level_); }
  // After a return: where in the table below the walk ended.
  uint64_t index_below() const { return EptIndex(at_, Below(level_)); }
  EntrySlot& slot() const { return slots()[index()]; }
  // The slots of the table it stands in.
  EntrySlot* slots() const { return slots_[static_cast<int>(level_)]; }
  Hpa table_hpa() const { return pool_.AddressOf(slots()); }
  // First frame that the entry covers; may lie before the range.
  HwGfn frame() const { return at_ - at_.value % FramesPerEntry(level_); }
  // The whole entry lies in the range.
  bool inside() const { return frame() >= begin_ && frame() + FramesPerEntry(level_) <= end_; }
  // The slot as it stands now: load once, then decide.
  EptEntry entry() const { return slot().Load(); }
  // The cursor has come back from the table below this entry.
  bool returned() const { return returned_; }

  // Into the table that `link` leads to. False: it leads outside the pool, and the cursor stays.
  bool Descend(EptEntry link) {
    EntrySlot* const child = pool_.SlotsAt(link.address());
    if (child == nullptr) return false;
    level_ = Below(level_);
    slots_[static_cast<int>(level_)] = child;
    returned_ = false;
    return true;
  }

  // Entries of this table from here to its end or the range's, for a loop over slots() + index().
  uint64_t entries_left() const {
    const uint64_t frames = FramesPerEntry(level_);
    return std::min(kEntriesPerTable - index(), (end_ - frame() + frames - 1) / frames);
  }

  // On by `entries`, at most entries_left(); or back to the entry above when this table has no more
  // in the range.
  void Next(uint64_t entries = 1) {
    const HwGfn last = frame() + (entries - 1) * FramesPerEntry(level_);
    const HwGfn next = last + FramesPerEntry(level_);
    returned_ = EptIndex(last, level_) == kEntriesPerTable - 1 || next >= end_;
    if (!returned_) {
      at_ = next;
    } else if (level_ == top_) {
      valid_ = false;
    } else {
      at_ = last;
      level_ = Above(level_);
    }
  }

 private:
  TablePool& pool_;
  const HwGfn begin_;
  HwGfn at_;
  const HwGfn end_;
  const Level top_;
  Level level_;
  bool valid_;
  bool returned_ = false;
  EntrySlot* slots_[static_cast<int>(Level::k256T) + 1] = {};
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TABLES_CURSOR_H_
