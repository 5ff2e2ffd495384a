#include "mmu/engine/zap.h"

#include "mmu/tables/cursor.h"

namespace twinroot::mmu {
namespace {

enum class Leaves : uint8_t { kClear, kKeep };

void Walk(const MmuLock::Exclusive& lock, TablePool& pool, EntryChange& change, const Root& root,
          GfnRange range, Leaves leaves, FlushBatch& batch) {
  for (Cursor at(lock, pool, root, range); at.valid();) {
    const EptEntry entry = at.entry();
    if (Table* child = at.Child(entry); child != nullptr) {
      if (!at.returned()) {
        at.Descend(*child);
        continue;
      }
      if (child->present.load(std::memory_order_relaxed) == 0) {
        change.Unlink(lock, at.table(), at.index(), *child);
        batch.AddTable(root, at.frame(), at.level(), *child);
      }
    } else if (entry.present() && entry.IsLeaf(at.level()) && leaves == Leaves::kClear) {
      change.ClearLeaf(lock, at.table(), at.index());
      batch.AddLeaf(root, at.frame(), at.level());
    }
    at.Next();
  }
}

}  // namespace

void Zap(const MmuLock::Exclusive& lock, TablePool& pool, EntryChange& change, const Root& root,
         GfnRange range, FlushBatch& batch) {
  Walk(lock, pool, change, root, range, Leaves::kClear, batch);
}

void PruneEmptyTables(const MmuLock::Exclusive& lock, TablePool& pool, EntryChange& change,
                      const Root& root, GfnRange range, FlushBatch& batch) {
  Walk(lock, pool, change, root, range, Leaves::kKeep, batch);
}

}  // namespace twinroot::mmu
