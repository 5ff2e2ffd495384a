#include "mmu/tables/entry_change.h"

#include <cassert>

namespace twinroot::mmu {

void EntryChange::AdoptRoot(Table& root, const TableIdentity& identity) {
  root.identity = identity;
  root.parent = nullptr;
  counts_.tables.fetch_add(1, std::memory_order_relaxed);
}

void EntryChange::DropRoot(Table& root) {
  assert(root.parent == nullptr);
  (void)root;
  counts_.tables.fetch_sub(1, std::memory_order_relaxed);
}

ChangeResult EntryChange::Link(const MmuLock::Shared&, Table& parent, uint64_t index, Table& child,
                               Gfn gfn) {
  child.identity = ChildIdentity(parent.identity, gfn);
  child.parent = &parent;
  EptEntry expected = kEmptyEntry;
  if (!parent.slots[index].CompareExchange(expected, EptEntry::Table(child.hpa))) {
    return ChangeResult::kRaced;
  }
  parent.present.fetch_add(1, std::memory_order_relaxed);
  counts_.tables.fetch_add(1, std::memory_order_relaxed);
  return ChangeResult::kDone;
}

void EntryChange::Unlink(const MmuLock::Exclusive&, Table& parent, uint64_t index, Table& child) {
  assert(child.parent == &parent && child.present.load() == 0);
  Replace(parent, index, EptEntry::Table(child.hpa), kEmptyEntry);
  parent.present.fetch_sub(1, std::memory_order_relaxed);
  counts_.tables.fetch_sub(1, std::memory_order_relaxed);
}

ChangeResult EntryChange::SetLeaf(const MmuLock::Shared&, Table& table, uint64_t index,
                                  EptEntry leaf) {
  EptEntry expected = kEmptyEntry;
  if (!table.slots[index].CompareExchange(expected, leaf)) return ChangeResult::kRaced;
  CountLeaf(table, 1);
  return ChangeResult::kDone;
}

EptEntry EntryChange::ClearLeaf(const MmuLock::Exclusive&, Table& table, uint64_t index) {
  EptEntry last = table.slots[index].Load();
  assert(last.present() && last.IsLeaf(table.level()));
  // A processor may set A or D between the load and the exchange: then try again, so that the
  // caller gets the bits as they last were.
  while (!table.slots[index].CompareExchange(last, kEmptyEntry)) {
  }
  CountLeaf(table, -1);
  return last;
}

ChangeResult EntryChange::Freeze(const MmuLock::Shared&, Table& table, uint64_t index) {
  EptEntry expected = kEmptyEntry;
  return table.slots[index].CompareExchange(expected, kFrozenEntry) ? ChangeResult::kDone
                                                                    : ChangeResult::kRaced;
}

void EntryChange::Publish(const MmuLock::Shared&, Table& table, uint64_t index, EptEntry leaf) {
  Replace(table, index, kFrozenEntry, leaf);
  CountLeaf(table, 1);
}

void EntryChange::Restore(const MmuLock::Shared&, Table& table, uint64_t index) {
  Replace(table, index, kFrozenEntry, kEmptyEntry);
}

// A change that nobody but a processor (A and D bits) can race with.
void EntryChange::Replace(Table& table, uint64_t index, EptEntry from, EptEntry to) {
  EptEntry expected = from;
  while (!table.slots[index].CompareExchange(expected, to)) {
    assert(expected.SameButAccessedDirty(from));
  }
}

void EntryChange::CountLeaf(Table& table, int64_t delta) {
  table.present.fetch_add(static_cast<uint32_t>(delta), std::memory_order_relaxed);
  counts_.leaves[static_cast<int>(table.identity.role.kind)][TableCounts::LeafIndex(table.level())]
      .fetch_add(static_cast<uint64_t>(delta), std::memory_order_relaxed);
}

}  // namespace twinroot::mmu
