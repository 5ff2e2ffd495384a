// What one change took out of the tables, and the only order in which it may be let go:
// flush the processors, remove from the external tables, then free the table pages.
//
// Not thread-safe. 1. One flush for each root however much was taken out. 2. A page is freed only
// after the flush. 3. Destroying a batch that holds something unfinished is a bug: it is reported,
// and its pages are never reused.
#ifndef TWINROOT_MMU_TABLES_FLUSH_BATCH_H_
#define TWINROOT_MMU_TABLES_FLUSH_BATCH_H_

#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "mmu/tables/bug_sink.h"
#include "mmu/tables/mmu_lock.h"
#include "mmu/tables/root.h"
#include "mmu/tables/table_pool.h"
#include "mmu/tables/tlb_flusher.h"
#include "mmu/types/gfn_range.h"

namespace twinroot::mmu {

// A batch always knows its range: it asks for no full flush.
struct FlushCounts {
  std::atomic<uint64_t> range{0};
};

class FlushBatch {
 public:
  // `flusher` may be null: nobody walks these tables but through an external table.
  FlushBatch(TablePool& pool, TlbFlusher* flusher, FlushCounts& counts, BugSink& bugs)
      : pool_(pool), flusher_(flusher), counts_(counts), bugs_(bugs) {}
  ~FlushBatch();
  FlushBatch(const FlushBatch&) = delete;
  FlushBatch& operator=(const FlushBatch&) = delete;

  // A leaf at `frame` was cleared.
  void AddLeaf(const Root& root, HwGfn frame, Level level);
  // A table was unlinked from an entry at `frame` of `level`: processors may have cached the way
  // to it for everything below that entry.
  void AddTable(const Root& root, HwGfn frame, Level level, Table& table);

  // Flushes, removes, frees. An error: an external table failed twice, and that was reported as a
  // bug. Finishing an empty batch does nothing.
  absl::Status Finish(const MmuLock::Exclusive&);

 private:
  // What left one root.
  struct Removed {
    Root root;
    HwGfn first;  // [first, end) is to be flushed
    HwGfn end;
    std::vector<GfnRange> leaves;  // for the external table; neighbours are merged
  };
  Removed& Of(const Root& root);
  void Cover(Removed& removed, HwGfn frame, Level level);

  TablePool& pool_;
  TlbFlusher* const flusher_;
  FlushCounts& counts_;
  BugSink& bugs_;
  std::optional<Removed> removed_[2];  // [MemoryKind]
  std::vector<Table*> retired_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TABLES_FLUSH_BATCH_H_
