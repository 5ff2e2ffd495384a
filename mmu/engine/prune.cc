#include "mmu/engine/prune.h"

namespace twinroot::mmu {

bool HoldsNothing(const MmuRead& read, const TablePool& pool, const EntrySlot* slots, Level level,
                  uint64_t from) {
  for (uint64_t i = 0; i < kEntriesPerTable; ++i) {
    const EptEntry entry = slots[(from + i) % kEntriesPerTable].Load();
    if (entry == kEmptyEntry) continue;
    const SlotState state = StateOf(entry, level);
    if (state == SlotState::kMmio) continue;
    if (state != SlotState::kLink) return false;
    const EntrySlot* const below = pool.SlotsAt(entry.address());
    if (below == nullptr || !HoldsNothing(read, pool, below, Below(level))) return false;
  }
  return true;
}

bool EmptyTableAt(const MmuRead& read, const TablePool& pool, const Root& root, Gfn gfn,
                  Level level) {
  const HwGfn frame = root.FrameOf(gfn);
  const EntrySlot* slots = root.table->slots;
  for (Level at = root.table->level(); at >= level; at = Below(at)) {
    const EptEntry entry = slots[EptIndex(frame, at)].Load();
    if (!IsLink(entry, at)) return false;
    slots = pool.SlotsAt(entry.address());
    if (slots == nullptr) return false;
  }
  // Neighbours of the frame are mapped more likely than others.
  return HoldsNothing(read, pool, slots, Below(level), EptIndex(frame, Below(level)));
}

bool UnlinkEmpty(const Turn& turn, TablePool& pool, EntryChange& change, const Root& root,
                 const Cursor& at, uint64_t from, FlushBatch& batch) {
  Table* const child = pool.At(at.entry().address());
  if (child == nullptr || !change.Seal(turn, child->slots, from)) return false;
  change.Detach(turn, at.slot());
  change.Forget(turn, root, Below(at.level()), 0);
  batch.AddTable(root, at.frame(), at.level(), *child);
  return true;
}

uint64_t Prune(const Turn& turn, TablePool& pool, EntryChange& change, const Root& root,
               GfnRange range, FlushBatch& batch) {
  uint64_t pruned = 0;
  for (Cursor at(turn, pool, root, range); at.valid(); at.Next()) {
    EptEntry entry = at.entry();
    // Down to the tables whose entries are no links.
    while (!at.returned() && at.level() > Level::k2M && IsLink(entry, at.level()) &&
           at.Descend(entry)) {
      entry = at.entry();
    }
    if (!IsLink(entry, at.level())) continue;
    EntrySlot* const slots = pool.SlotsAt(entry.address());
    const Level below = Below(at.level());
    if (slots == nullptr || !HoldsNothing(turn, pool, slots, below)) continue;
    for (uint64_t i = 0; i < kEntriesPerTable; ++i) {
      if (StateOf(slots[i].Load(), below) == SlotState::kMmio) change.ClearMark(turn, slots[i]);
    }
    if (UnlinkEmpty(turn, pool, change, root, at, 0, batch)) ++pruned;
  }
  return pruned;
}

}  // namespace twinroot::mmu
