#include "mmu/tables/entry_change.h"

#include <cassert>
#include <thread>

#include "mmu/hw/mmio_entry.h"

namespace twinroot::mmu {
namespace {

// Who holds a slot frozen does a handful of steps, or calls an external table: spin a little first.
class Patience {
 public:
  void Wait() {
#if defined(__x86_64__)
    if (++spins_ < kSpins) return __builtin_ia32_pause();
#endif
    std::this_thread::yield();
  }

 private:
  static constexpr int kSpins = 64;
  int spins_ = 0;
};

// Words of a table that nobody else knows yet.
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__) && defined(__OPTIMIZE__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
void FillWords(uint64_t* words, uint64_t first, uint64_t step) {
  for (uint64_t i = 0; i < kEntriesPerTable; ++i) words[i] = first + i * step;
}

}  // namespace

void EntryChange::AdoptRoot(Table& root, const TableIdentity& identity) {
  root.identity = identity;
  root.parent = nullptr;
  root.named = true;
  counts_.Add(VmCount::kTables);
}

void EntryChange::DropRoot(Table& root) {
  assert(root.parent == nullptr);
  (void)root;
  counts_.Add(VmCount::kTables, ~uint64_t{0});
}

ChangeResult EntryChange::Link(const MmuRead&, const Root& root, const Table& parent,
                               EntrySlot& slot, EptEntry seen, Table& child, Gfn gfn) {
  child.identity = ChildIdentity(parent.identity, root, gfn);
  child.parent = &parent;
  child.named = true;
  if (!slot.CompareExchange(seen, LinkTo(child.hpa))) return ChangeResult::kRaced;
  counts_.Add(VmCount::kTables);
  return ChangeResult::kDone;
}

void EntryChange::PublishMark(EntrySlot& slot, EptEntry mark) {
  assert(mark == kEmptyEntry || IsMmioEntry(mark));
  slot.Store(mark);
}

ChangeResult EntryChange::ChangeRights(const MmuRead&, EntrySlot& slot, EptEntry seen,
                                       EptEntry leaf) {
  assert(seen.address() == leaf.address());
  return slot.CompareExchange(seen, leaf) ? ChangeResult::kDone : ChangeResult::kRaced;
}

ChangeResult EntryChange::Split(const MmuRead&, const Root& root, const Table& parent,
                                EntrySlot& slot, EptEntry seen, Table& child, Gfn gfn,
                                EptEntry first_child) {
  Fill(root, parent, child, gfn, first_child);
  if (!slot.CompareExchange(seen, LinkTo(child.hpa))) {
    FillWords(reinterpret_cast<uint64_t*>(child.slots), kEmptyEntry.raw(), 0);
    return ChangeResult::kRaced;
  }
  CountSplit(root, parent.level());
  return ChangeResult::kDone;
}

void EntryChange::PublishSplit(const Root& root, const Table& parent, EntrySlot& slot, Table& child,
                               Gfn gfn, EptEntry first_child) {
  Fill(root, parent, child, gfn, first_child);
  slot.Store(LinkTo(child.hpa));
  CountSplit(root, parent.level());
}

void EntryChange::Fill(const Root& root, const Table& parent, Table& child, Gfn gfn,
                       EptEntry first_child) {
  child.identity = ChildIdentity(parent.identity, root, gfn);
  child.parent = &parent;
  child.named = true;
  FillWords(reinterpret_cast<uint64_t*>(child.slots), first_child.raw(),
            BytesPerEntry(child.level()));
}

void EntryChange::FillUnlinked(const Turn&, Table& table, EptEntry first, uint64_t step) {
  FillWords(reinterpret_cast<uint64_t*>(table.slots), first.raw(), step);
}

void EntryChange::CountSplit(const Root& root, Level level) {
  counts_.Add(VmCount::kTables);
  counts_.Add(LeafCount(root.kind, level), ~uint64_t{0});
  counts_.Add(LeafCount(root.kind, Below(level)), kEntriesPerTable);
}

EptEntry EntryChange::Settle(const Turn&, const EntrySlot& slot) {
  Patience patience;
  EptEntry entry = slot.LoadOrdered();
  while (entry == kFrozenEntry) {
    patience.Wait();
    entry = slot.LoadOrdered();
  }
  return entry;
}

std::optional<EptEntry> EntryChange::ClearBusyLeaf(const Turn& turn, const Root& root,
                                                   EntrySlot& slot, Level level) {
  EptEntry last = Settle(turn, slot);
  // A processor may set A or D, a fault may give a right back or freeze the slot to tell an
  // external table again: then once more, so that the caller gets the leaf as it last was.
  while (StateOf(last, level) == SlotState::kLeaf) {
    if (slot.CompareExchange(last, kEmptyEntry)) {
      counts_.Add(LeafCount(root.kind, level), ~uint64_t{0});
      return last;
    }
    if (last == kFrozenEntry) last = Settle(turn, slot);
  }
  return std::nullopt;
}

void EntryChange::ClearMark(const Turn& turn, EntrySlot& slot) {
  // A fault that fills it meanwhile wins, there is memory now; one that puts the mark back does
  // not.
  EptEntry seen = Settle(turn, slot);
  while (StateOf(seen, Level::k4K) == SlotState::kMmio &&
         !slot.CompareExchange(seen, kEmptyEntry)) {
    seen = Settle(turn, slot);
  }
}

void EntryChange::Detach(const Turn&, EntrySlot& slot) {
  EptEntry link = slot.Load();
  while (!slot.CompareExchange(link, kEmptyEntry)) {
  }
}

void EntryChange::Forget(const Turn& turn, const Root& root, Level leaves_at, uint64_t leaves) {
  ForgetTable(turn);
  ForgetLeaves(turn, root.kind, leaves_at, leaves);
}

void EntryChange::ForgetTable(const Turn&) { counts_.Add(VmCount::kTables, ~uint64_t{0}); }

void EntryChange::ForgetLeaves(const Turn&, MemoryKind kind, Level leaves_at, uint64_t leaves) {
  if (leaves != 0) counts_.Add(LeafCount(kind, leaves_at), ~leaves + 1);
}

bool EntryChange::Seal(const Turn&, EntrySlot* slots, uint64_t hint) {
  // Most tables are not empty: look before anything is written. The entry before the hint is where
  // the walk came back from: above the leaves it still holds its table.
  if (slots[(hint + kEntriesPerTable - 1) % kEntriesPerTable].Load() != kEmptyEntry) return false;
  for (uint64_t i = 0; i < kEntriesPerTable; ++i) {
    if (slots[(hint + i) % kEntriesPerTable].Load() != kEmptyEntry) return false;
  }
  for (uint64_t i = 0; i < kEntriesPerTable; ++i) {
    EptEntry expected = kEmptyEntry;
    if (slots[i].CompareExchange(expected, kFrozenEntry)) continue;
    while (i-- > 0) slots[i].Store(kEmptyEntry);
    return false;
  }
  return true;
}

void EntryChange::Cover(const Turn&, const Root& root, EntrySlot& slot, Level level,
                        EptEntry leaf) {
  EptEntry link = slot.Load();
  assert(StateOf(link, level) == SlotState::kLink);
  while (!slot.CompareExchange(link, leaf)) {
  }
  counts_.Add(LeafCount(root.kind, level));
}

bool EntryChange::TakeWriteFromBusy(const Turn& turn, EntrySlot& slot, Level level) {
  EptEntry leaf = slot.LoadOrdered();
  while (true) {
    if (leaf == kFrozenEntry) leaf = Settle(turn, slot);
    if (StateOf(leaf, level) != SlotState::kLeaf || !leaf.access().write()) return false;
    if (slot.CompareExchange(leaf, WithoutWrite(leaf))) return true;
  }
}

EptEntry EntryChange::KeepRights(const Turn& turn, EntrySlot& slot, Level level, Access keep) {
  EptEntry leaf = Settle(turn, slot);
  while (StateOf(leaf, level) == SlotState::kLeaf && WithOnly(leaf, keep) != leaf &&
         !slot.CompareExchange(leaf, WithOnly(leaf, keep))) {
    if (leaf == kFrozenEntry) leaf = Settle(turn, slot);
  }
  return leaf;
}

bool EntryChange::TakeDirty(const Turn& turn, EntrySlot& slot, Level level) {
  const EptEntry leaf = Settle(turn, slot);
  return StateOf(leaf, level) == SlotState::kLeaf && leaf.dirty() &&
         EptEntry(slot.word_.fetch_and(~EptEntry::kDirty)).dirty();
}

bool EntryChange::TakeAccessed(const Turn& turn, EntrySlot& slot, Level level) {
  const EptEntry leaf = Settle(turn, slot);
  return StateOf(leaf, level) == SlotState::kLeaf && leaf.accessed() &&
         EptEntry(slot.word_.fetch_and(~EptEntry::kAccessed)).accessed();
}

bool EntryChange::SaveRights(const Turn& turn, EntrySlot& slot, Level level) {
  EptEntry leaf = slot.LoadOrdered();
  while (true) {
    if (leaf == kFrozenEntry) leaf = Settle(turn, slot);
    if (StateOf(leaf, level) != SlotState::kLeaf || leaf.access().empty()) return false;
    if (slot.CompareExchange(leaf, WithSavedAccess(WithoutWrite(leaf)))) return true;
  }
}

void EntryChange::AddAccessedDirty(const Turn& turn, EntrySlot& slot, Level level,
                                   EptEntry seen_below) {
  EptEntry leaf = Settle(turn, slot);
  while (StateOf(leaf, level) == SlotState::kLeaf && leaf.WithFlagsOf(seen_below) != leaf &&
         !slot.CompareExchange(leaf, leaf.WithFlagsOf(seen_below))) {
    if (leaf == kFrozenEntry) leaf = Settle(turn, slot);
  }
}

}  // namespace twinroot::mmu
