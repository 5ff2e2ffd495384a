// The only place that changes slots, and that keeps the books about them: present entries of each
// table, tables in use, leaves by kind and level.
//
// Under MmuLock::Shared several threads change slots: an empty slot is won by CAS, the loser gets
// kRaced. What makes an entry go away asks for Exclusive. Processors set A and D bits under every
// lock. A frozen slot belongs to the thread that froze it, which holds the lock until it is
// published or restored: under Exclusive nothing is frozen.
#ifndef TWINROOT_MMU_TABLES_ENTRY_CHANGE_H_
#define TWINROOT_MMU_TABLES_ENTRY_CHANGE_H_

#include <atomic>
#include <cstdint>

#include "mmu/tables/mmu_lock.h"
#include "mmu/tables/table.h"

namespace twinroot::mmu {

// The books of one VM.
struct TableCounts {
  std::atomic<uint64_t> tables{0};
  std::atomic<uint64_t> leaves[2][3] = {};  // [MemoryKind][0: 4K, 1: 2M, 2: 1G]

  static constexpr int LeafIndex(Level level) { return static_cast<int>(level) - 1; }
};

enum class ChangeResult : uint8_t { kDone, kRaced };

class EntryChange {
 public:
  explicit EntryChange(TableCounts& counts) : counts_(counts) {}

  // A root has no slot that points to it; this only keeps the books.
  void AdoptRoot(Table& root, const TableIdentity& identity);
  void DropRoot(Table& root);

  // Empty -> a link to `child`, which is filled as far as it will be and not yet linked.
  // `gfn` is any frame below it.
  ChangeResult Link(const MmuLock::Shared&, Table& parent, uint64_t index, Table& child, Gfn gfn);
  // Link -> empty. The child is empty; processors may still know it until they are flushed.
  void Unlink(const MmuLock::Exclusive&, Table& parent, uint64_t index, Table& child);

  // Empty -> leaf.
  ChangeResult SetLeaf(const MmuLock::Shared&, Table& table, uint64_t index, EptEntry leaf);
  // Leaf -> empty; returns the leaf as it last stood, A and D bits included.
  EptEntry ClearLeaf(const MmuLock::Exclusive&, Table& table, uint64_t index);

  // Empty -> frozen; then exactly one of Publish and Restore by the same thread.
  ChangeResult Freeze(const MmuLock::Shared&, Table& table, uint64_t index);
  void Publish(const MmuLock::Shared&, Table& table, uint64_t index, EptEntry leaf);
  void Restore(const MmuLock::Shared&, Table& table, uint64_t index);

 private:
  void Replace(Table& table, uint64_t index, EptEntry from, EptEntry to);
  void CountLeaf(Table& table, int64_t delta);

  TableCounts& counts_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TABLES_ENTRY_CHANGE_H_
