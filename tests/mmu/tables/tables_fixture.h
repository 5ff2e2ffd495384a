// A pool and one root, for tests of what stands on tables alone.
#ifndef TWINROOT_TESTS_MMU_TABLES_TABLES_FIXTURE_H_
#define TWINROOT_TESTS_MMU_TABLES_TABLES_FIXTURE_H_

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "mmu/tables/bug_sink.h"
#include "mmu/tables/entry_change.h"
#include "mmu/tables/flush_batch.h"
#include "mmu/tables/mutex.h"
#include "mmu/tables/root.h"
#include "mmu/tables/table_pool.h"
#include "mmu/tables/vm_counts.h"
#include "tests/fakes/call_log.h"
#include "tests/fakes/fake_external_tables.h"
#include "tests/fakes/recording_flusher.h"
#include "tests/fakes/test_space.h"

namespace twinroot::mmu {

class RecordingBugSink : public BugSink {
 public:
  void ReportBug(const std::string& what) override { bugs.push_back(what); }
  std::vector<std::string> bugs;
};

struct TablesFixture {
  static constexpr Hpa kBase{uint64_t{1} << 32};

  explicit TablesFixture(size_t pages = 16)
      : memory(pages), pool(kBase, memory.get(), pages), flusher(log) {
    TableRole role;
    role.level = Level::k512G;
    root.table = &NewTable();
    change.AdoptRoot(*root.table, {Gfn(0), role});
  }
  Table& NewTable() {
    PreloadedTables preload(pool);
    EXPECT_TRUE(pool.Preload(1, preload).ok());
    return preload.Take();
  }
  // A new table below an entry of `parent`.
  Table& LinkNew(const Table& parent, uint64_t index, Gfn gfn) {
    Table& child = NewTable();
    const EpochGuard guard;
    EXPECT_EQ(change.Link(guard, root, parent, parent.slots[index], kEmptyEntry, child, gfn),
              ChangeResult::kDone);
    return child;
  }
  ChangeResult SetLeaf(EntrySlot& slot, Level level, EptEntry leaf) {
    const EpochGuard guard;
    if (change.Freeze(guard, slot, kEmptyEntry) == ChangeResult::kRaced) {
      return ChangeResult::kRaced;
    }
    change.Publish(root, slot, level, kEmptyEntry, leaf);
    return ChangeResult::kDone;
  }
  FlushBatch Batch(FlushBatch::OnLeaf on_leaf = nullptr) {
    return FlushBatch(pool, change, &flusher, counts, bugs, std::move(on_leaf));
  }
  uint64_t tables() const { return counts.Sum(VmCount::kTables); }
  uint64_t leaves(Level level) const { return counts.Sum(LeafCount(root.kind, level)); }

  PoolMemory memory;
  TablePool pool;
  CallLog log;
  RecordingFlusher flusher;
  VmCounts counts;
  EntryChange change{counts};
  RecordingBugSink bugs;
  Mutex turn_mutex;
  Root root;
};

// A slot as a processor, or a bug, sees it.
inline std::atomic<uint64_t>& RawWord(EntrySlot& slot) {
  return *reinterpret_cast<std::atomic<uint64_t>*>(&slot);
}

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_MMU_TABLES_TABLES_FIXTURE_H_
