// A pool and one root, for tests of what stands on tables alone.
#ifndef TWINROOT_TESTS_MMU_TABLES_TABLES_FIXTURE_H_
#define TWINROOT_TESTS_MMU_TABLES_TABLES_FIXTURE_H_

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "mmu/tables/bug_sink.h"
#include "mmu/tables/entry_change.h"
#include "mmu/tables/flush_batch.h"
#include "mmu/tables/mmu_lock.h"
#include "mmu/tables/root.h"
#include "mmu/tables/table_pool.h"
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
    root = {
        .table = &NewTable(), .kind = MemoryKind::kPrivate, .base = HwGfn(0), .external = nullptr};
    change.AdoptRoot(*root.table, {Gfn(0), role});
  }
  Table& NewTable() {
    PreloadedTables preload(pool);
    EXPECT_TRUE(pool.Preload(1, preload).ok());
    return preload.Take();
  }
  FlushBatch Batch() { return FlushBatch(pool, &flusher, flushes, bugs); }

  PoolMemory memory;
  TablePool pool;
  CallLog log;
  RecordingFlusher flusher;
  TableCounts counts;
  EntryChange change{counts};
  FlushCounts flushes;
  RecordingBugSink bugs;
  MmuLock mmu_lock;
  Root root;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_MMU_TABLES_TABLES_FIXTURE_H_
