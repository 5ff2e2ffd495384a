// What one change took out of the tables, and the only order in which it may be let go:
// wait for faults that still know it, flush the processors, take it from the external tables, free
// the table pages.
//
// Not thread-safe. 1. One flush for each alias however much was taken out. 2. A page is reused only
// after the flush, and after every fault that could know it. 3. Destroying a batch that holds
// something unfinished is a bug: it is reported, and its pages are never reused.
#ifndef TWINROOT_MMU_TABLES_FLUSH_BATCH_H_
#define TWINROOT_MMU_TABLES_FLUSH_BATCH_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "mmu/tables/bug_sink.h"
#include "mmu/tables/entry_change.h"
#include "mmu/tables/root.h"
#include "mmu/tables/table_pool.h"
#include "mmu/tables/tlb_flusher.h"
#include "mmu/types/gfn_range.h"

namespace twinroot::mmu {

// What became of taking leaves away from external tables, twice: OK, or it is a bug from now on and
// kInternal, whatever their owner calls it.
absl::Status CheckRemoved(const absl::Status& external, BugSink& bugs);

class FlushBatch {
 public:
  // Called for every leaf of a detached table as it last stood, before anything is freed.
  using OnLeaf = std::function<void(Gfn gfn, Level level, EptEntry leaf)>;

  // `flusher` may be null: nobody walks these tables but through an external table.
  FlushBatch(TablePool& pool, EntryChange& change, TlbFlusher* flusher, VmCounts& counts,
             BugSink& bugs, OnLeaf on_leaf = nullptr)
      : pool_(pool),
        change_(change),
        flusher_(flusher),
        counts_(counts),
        bugs_(bugs),
        on_leaf_(std::move(on_leaf)) {}
  ~FlushBatch();
  FlushBatch(const FlushBatch&) = delete;
  FlushBatch& operator=(const FlushBatch&) = delete;

  const OnLeaf& on_leaf() const { return on_leaf_; }

  // A leaf at `frame` was cleared.
  void AddLeaf(const Root& root, HwGfn frame, Level level) {
    Removed& removed = Of(root);
    Cover(removed, frame, FramesPerEntry(level));
    TellExternal(removed, {root.GfnOf(frame), FramesPerEntry(level)});
  }
  // Rights or flags of leaves in [first, first + frames) were taken away: to be flushed, nothing to
  // be removed.
  void AddFlush(const Root& root, HwGfn first, uint64_t frames) { Cover(Of(root), first, frames); }
  // An empty table was sealed and unlinked from an entry at `frame` of `level`.
  void AddTable(const Root& root, HwGfn frame, Level level, Table& table);
  // The same for a table that still holds links and leaves; faults may be inside.
  void AddSubtree(const Root& root, HwGfn frame, Level level, Table& table);

  // A table that a leaf in `slot` has replaced (EntryChange::Cover): nothing is unmapped. A and D
  // bits that processors still set in it go to that leaf.
  void AddCovered(const Root& root, HwGfn frame, Level level, EntrySlot& slot, Table& table);

  // A table that may be empty now was left linked.
  void LeaveTable() { counts_.Add(VmCount::kTablesLeft); }

  bool empty() const;
  // Flushes, removes, frees. An error: an external table failed twice, and that was reported as a
  // bug. Finishing an empty batch does nothing.
  absl::Status Finish(const Turn&);

 private:
  // What left one alias.
  struct Removed {
    Root root;
    HwGfn first;  // [first, end) is to be flushed
    HwGfn end;
    std::vector<GfnRange> leaves;  // for the external table; neighbours are merged
    struct Subtree {
      Table* table;
      EntrySlot* covered_by;  // null: it was detached, its leaves are gone
    };
    std::vector<Subtree> subtrees;
  };
  Removed& Of(const Root& root) {
    std::optional<Removed>& removed =
        removed_[2 * static_cast<int>(root.kind) + (root.execute_only ? 1 : 0)];
    if (!removed) removed = Removed{root, HwGfn(~uint64_t{0}), HwGfn(0), {}, {}};
    return *removed;
  }
  static void Cover(Removed& removed, HwGfn first, uint64_t frames) {
    removed.first = std::min(removed.first, first);
    removed.end = std::max(removed.end, first + frames);
  }
  static void TellExternal(Removed& removed, GfnRange range) {
    if (removed.root.external != nullptr) AddExternal(removed, range);
  }
  static void AddExternal(Removed& removed, GfnRange range);
  // Returns the A and D bits of all its leaves together.
  EptEntry TakeDown(const Turn&, const Root& root, Table& table, bool covered);

  TablePool& pool_;
  EntryChange& change_;
  TlbFlusher* const flusher_;
  VmCounts& counts_;
  BugSink& bugs_;
  const OnLeaf on_leaf_;
  std::optional<Removed> removed_[4];  // 2 * MemoryKind + execute_only
  TableList retired_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TABLES_FLUSH_BATCH_H_
