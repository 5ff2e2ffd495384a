#include "mmu/engine/zap.h"

#include <optional>
#include <utility>

#include "mmu/engine/prune.h"
#include "mmu/tables/cursor.h"
#include "mmu/tables/descent.h"

namespace twinroot::mmu {
namespace {

// From so many frames on whole tables are detached, which costs one wait for an epoch instead of
// one exchange for each leaf.
constexpr uint64_t kDetachFrom = 8 * FramesPerEntry(Level::k2M);

// So many leaves have to go from a table before it is worth a look at all its entries.
constexpr uint64_t kLookFrom = 64;

// False: the slot holds no leaf, not even one that a fault was about to change.
bool TakeLeaf(const Turn& turn, EntryChange& change, const Root& root, EntrySlot& slot, HwGfn frame,
              Level level, FlushBatch& batch) {
  const std::optional<EptEntry> last = change.ClearLeaf(turn, root, slot, level);
  if (!last) return false;
  if (batch.on_leaf()) batch.on_leaf()(root.GfnOf(frame), level, *last);
  batch.AddLeaf(root, frame, level);
  return true;
}

class Zapper {
 public:
  Zapper(const Turn& turn, TablePool& pool, EntryChange& change, const Root& root, GfnRange range,
         FlushBatch& batch)
      : turn_(turn),
        pool_(pool),
        change_(change),
        root_(root),
        detach_(range.count >= kDetachFrom),
        batch_(batch),
        at_(turn, pool, root, range) {}

  void Run() {
    while (at_.valid()) {
      if (at_.returned()) {
        LookBack();
      } else if (Visit()) {
        continue;
      }
      at_.Next();
    }
  }

 private:
  // True: the cursor went down.
  bool Visit() {
    const EptEntry entry = EntryChange::Settle(turn_, at_.slot());
    switch (StateOf(entry, at_.level())) {
      case SlotState::kLink:
        if (!detach_ || !at_.inside()) return at_.Descend(entry);
        if (Table* child = pool_.At(entry.address())) {
          change_.Detach(turn_, at_.slot());
          batch_.AddSubtree(root_, at_.frame(), at_.level(), *child);
          gone_[static_cast<int>(at_.level())] += kLookFrom;
        }
        return false;
      case SlotState::kLeaf:
        if (!TakeLeaf(turn_, change_, root_, at_.slot(), at_.frame(), at_.level(), batch_)) {
          return Visit();  // it is a link now
        }
        ++gone_[static_cast<int>(at_.level())];
        return false;
      case SlotState::kMmio:
        change_.ClearMark(turn_, at_.slot());
        return false;
      case SlotState::kEmpty:
      case SlotState::kFrozen:
        return false;
    }
    return false;
  }

  // Back from the table below this entry.
  void LookBack() {
    const uint64_t gone = std::exchange(gone_[static_cast<int>(Below(at_.level()))], 0);
    if (gone == 0) return;
    if (gone < kLookFrom && !at_.inside()) {
      batch_.LeaveTable();
    } else if (UnlinkEmpty(turn_, pool_, change_, root_, at_, at_.index_below() + 1, batch_)) {
      // From behind what was zapped, which is empty: the entry there is as likely full as any.
      gone_[static_cast<int>(at_.level())] += kLookFrom;
    }
  }

  const Turn& turn_;
  TablePool& pool_;
  EntryChange& change_;
  const Root& root_;
  const bool detach_;
  FlushBatch& batch_;
  Cursor at_;
  // By level: leaves that went from the table in which the cursor stands there. A table that went
  // counts for many.
  uint64_t gone_[static_cast<int>(Level::k256T) + 1] = {};
};

// Pages of one table, so few that nobody looks whether they were its last: without a cursor. False:
// it is no such range, or a large leaf is in it, and nothing was done.
bool ZapFew(const Turn& turn, const TablePool& pool, EntryChange& change, const Root& root,
            GfnRange range, FlushBatch& batch) {
  const uint64_t index = range.first.value % kEntriesPerTable;
  if (range.count >= kLookFrom || index + range.count > kEntriesPerTable) return false;
  const Descent at = Descend(turn, pool, root, range.first);
  if (at.slot == nullptr || at.level != Level::k4K) {
    return at.slot != nullptr && at.entry == kEmptyEntry;
  }
  uint64_t gone = 0;
  for (uint64_t i = 0; i < range.count; ++i) {
    EntrySlot& slot = at.slot[i];
    const HwGfn frame = root.FrameOf(range.first + i);
    if (TakeLeaf(turn, change, root, slot, frame, Level::k4K, batch)) {
      ++gone;
    } else {
      change.ClearMark(turn, slot);
    }
  }
  if (gone != 0) batch.LeaveTable();
  return true;
}

}  // namespace

void Zap(const Turn& turn, TablePool& pool, EntryChange& change, const Root& root, GfnRange range,
         FlushBatch& batch) {
  if (ZapFew(turn, pool, change, root, range, batch)) return;
  Zapper(turn, pool, change, root, range, batch).Run();
}

}  // namespace twinroot::mmu
