// Tables that ZapAll took out of reach and that nobody has taken down yet (behaviour F7).
//
//   root word -x-> [detached subtree]  waits here  -> TakeDown, some tables at a time -> pool
//
// Books: a waiting table still counts as in use (it takes a page of the budget); its leaves still
// count in VmCounts, but not as mapped: leaves() says how many of those counts wait here. Changed
// under the turn; the counts may be read any time.
#ifndef TWINROOT_MMU_VM_TABLE_LIMBO_H_
#define TWINROOT_MMU_VM_TABLE_LIMBO_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "mmu/tables/entry_change.h"
#include "mmu/tables/epoch.h"
#include "mmu/tables/table_pool.h"
#include "mmu/tables/vm_counts.h"
#include "mmu/types/level.h"
#include "mmu/vm/gpa_layout.h"
#include "mmu/vm/root_set.h"

namespace twinroot::mmu {

class TableLimbo {
 public:
  TableLimbo(TablePool& pool, EntryChange& change, VmCounts& counts, const GpaLayout& layout)
      : pool_(pool), change_(change), counts_(counts), layout_(layout) {}
  // Frees what waits. No vCPU and no fault any more.
  ~TableLimbo();
  TableLimbo(const TableLimbo&) = delete;
  TableLimbo& operator=(const TableLimbo&) = delete;

  // Detaches everything below the roots: a step for each word of a root table, however much is
  // mapped. No fault publishes meanwhile (Quiet). One more generation. To be flushed and removed
  // from external tables before any TakeDown. Waits for an epoch.
  void DetachAll(const Turn& turn, const RootSet& roots);

  // Frees at most `max_tables` of those that wait; returns how many. `on_leaf`, if set, hears of
  // each leaf.
  using OnLeaf = std::function<void(Gfn gfn, Level level, EptEntry leaf)>;
  size_t TakeDown(const Turn& turn, size_t max_tables, const OnLeaf& on_leaf = nullptr);

  // How often everything was detached.
  uint64_t generation() const { return generation_.load(std::memory_order_relaxed); }
  // Detached tables that wait, each with all that is below it.
  size_t waiting() const { return size_.load(std::memory_order_acquire); }
  uint64_t leaves(MemoryKind kind, Level level) const {
    return leaves_[Index(kind)][Index(level)].load(std::memory_order_relaxed);
  }

  // What is really there, by a walk over everything that waits.
  struct Recount {
    uint64_t leaves[2][3] = {};  // [MemoryKind][0: 4K, 1: 2M, 2: 1G]
  };
  Recount Count(const Turn&, const std::function<void(const Table&)>& visit) const;

 private:
  struct Detached {
    Table* table;
    HwGfn first;  // that entry 0 covers
  };
  static size_t Index(MemoryKind kind) { return static_cast<size_t>(kind); }
  static size_t Index(Level level) { return static_cast<size_t>(level) - 1; }
  // Adds the tables below to `below`, and the leaves by kind to `leaves`.
  void Look(const Detached& at, std::vector<Detached>& below, uint64_t (&leaves)[2],
            const OnLeaf& on_leaf = nullptr) const;

  TablePool& pool_;
  EntryChange& change_;
  VmCounts& counts_;
  const GpaLayout& layout_;
  std::vector<Detached> waiting_;
  std::atomic<size_t> size_{0};
  std::atomic<uint64_t> generation_{0};
  std::atomic<uint64_t> leaves_[2][3] = {};
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_TABLE_LIMBO_H_
