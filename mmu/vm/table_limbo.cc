#include "mmu/vm/table_limbo.h"

namespace twinroot::mmu {

TableLimbo::~TableLimbo() {
  while (!waiting_.empty()) {
    const Detached at = waiting_.back();
    waiting_.pop_back();
    uint64_t leaves[2] = {};
    Look(at, waiting_, leaves);
    pool_.Free(*at.table);
  }
}

void TableLimbo::DetachAll(const Turn& turn, const RootSet& roots) {
  for (const std::vector<Root>& aliases : roots.ByTable()) {
    const Table& root = *aliases.front().table;
    for (uint64_t i = 0; i < kEntriesPerTable; ++i) {
      EntrySlot& slot = root.slots[i];
      const EptEntry entry = EntryChange::Settle(turn, slot);
      const SlotState state = StateOf(entry, root.level());
      if (state == SlotState::kMmio) change_.ClearMark(turn, slot);
      if (state != SlotState::kLink) continue;
      Table* const child = pool_.At(entry.address());
      if (child == nullptr) continue;  // the auditor and every fault there say so
      change_.Detach(turn, slot);
      waiting_.push_back({child, HwGfn(i * FramesPerEntry(root.level()))});
    }
  }
  // Faults that were inside leave, whatever they froze, linked or split there.
  SynchronizeEpoch();
  // Whatever leaf is in the books is out of reach now.
  for (const MemoryKind kind : kAllKinds) {
    for (const Level level : {Level::k4K, Level::k2M, Level::k1G}) {
      leaves_[Index(kind)][Index(level)] = counts_.Sum(LeafCount(kind, level));
    }
  }
  generation_.fetch_add(1, std::memory_order_relaxed);
  size_.store(waiting_.size(), std::memory_order_release);
}

size_t TableLimbo::TakeDown(const Turn& turn, size_t max_tables, const OnLeaf& on_leaf) {
  if (waiting_.empty() || max_tables == 0) return 0;
  size_t done = 0;
  for (; done < max_tables && !waiting_.empty(); ++done) {
    const Detached at = waiting_.back();
    waiting_.pop_back();
    const Level level = at.table->level();
    uint64_t leaves[2] = {};
    Look(at, waiting_, leaves, on_leaf);
    for (const MemoryKind kind : kAllKinds) {
      const uint64_t gone = leaves[Index(kind)];
      if (gone == 0) continue;
      change_.ForgetLeaves(turn, kind, level, gone);
      leaves_[Index(kind)][Index(level)] -= gone;
    }
    change_.ForgetTable(turn);
    pool_.Free(*at.table);
  }
  size_.store(waiting_.size(), std::memory_order_release);
  return done;
}

TableLimbo::Recount TableLimbo::Count(const Turn&,
                                      const std::function<void(const Table&)>& visit) const {
  Recount recount;
  std::vector<Detached> todo = waiting_;
  while (!todo.empty()) {
    const Detached at = todo.back();
    todo.pop_back();
    uint64_t leaves[2] = {};
    Look(at, todo, leaves);
    for (const MemoryKind kind : kAllKinds) {
      const uint64_t found = leaves[Index(kind)];
      if (found != 0) recount.leaves[Index(kind)][Index(at.table->level())] += found;
    }
    visit(*at.table);
  }
  return recount;
}

void TableLimbo::Look(const Detached& at, std::vector<Detached>& below, uint64_t (&leaves)[2],
                      const OnLeaf& on_leaf) const {
  const Level level = at.table->level();
  for (uint64_t i = 0; i < kEntriesPerTable; ++i) {
    const EptEntry entry = at.table->slots[i].Load();
    const SlotState state = StateOf(entry, level);
    if (state != SlotState::kLink && state != SlotState::kLeaf) continue;
    const HwGfn frame = at.first + i * FramesPerEntry(level);
    if (state == SlotState::kLeaf) {
      ++leaves[Index(layout_.KindOf(Gpa(frame.value << kPageShift)))];
      if (on_leaf) on_leaf(layout_.GfnOf(frame), level, entry);
    } else if (Table* const child = pool_.At(entry.address())) {
      below.push_back({child, frame});
    }
  }
}

}  // namespace twinroot::mmu
