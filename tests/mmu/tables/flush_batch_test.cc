#include "mmu/tables/flush_batch.h"

#include <gtest/gtest.h>

#include "tests/mmu/tables/tables_fixture.h"

namespace twinroot::mmu {
namespace {

using Calls = std::vector<std::string>;

TEST(FlushBatchTest, OneFlushCoversEverythingOfARoot) {
  TablesFixture t;
  FlushBatch batch = t.Batch();
  batch.AddLeaf(t.root, HwGfn(40), Level::k4K);
  batch.AddLeaf(t.root, HwGfn(1024), Level::k2M);
  batch.AddLeaf(t.root, HwGfn(7), Level::k4K);
  const MmuLock::Exclusive lock(t.mmu_lock);
  EXPECT_TRUE(batch.Finish(lock).ok());
  EXPECT_EQ(t.log.Take(), (Calls{"flush private 0x7+1529"}));
  EXPECT_EQ(t.flushes.range, 1u);
  EXPECT_TRUE(batch.Finish(lock).ok());
  EXPECT_EQ(t.log.Take(), Calls{});
}

TEST(FlushBatchTest, AnEmptyBatchFlushesNothing) {
  TablesFixture t;
  FlushBatch batch = t.Batch();
  const MmuLock::Exclusive lock(t.mmu_lock);
  EXPECT_TRUE(batch.Finish(lock).ok());
  EXPECT_EQ(t.log.Take(), Calls{});
}

// A flusher that looks at the pool: pages must not be free before the flush.
class LookingFlusher : public TlbFlusher {
 public:
  explicit LookingFlusher(TablePool& pool) : pool_(pool) {}
  void FlushRange(MemoryKind, HwGfn first, uint64_t count) override {
    used_at_flush = pool_.stats().used;
    flushed_first = first;
    flushed_count = count;
  }
  void FlushAll() override {}
  size_t used_at_flush = 0;
  HwGfn flushed_first;
  uint64_t flushed_count = 0;

 private:
  TablePool& pool_;
};

TEST(FlushBatchTest, TablesAreFreedAfterAFlushOfEverythingBelowThem) {
  TablesFixture t;
  LookingFlusher flusher(t.pool);
  FlushBatch batch(t.pool, &flusher, t.flushes, t.bugs);
  Table& table = t.NewTable();
  batch.AddTable(t.root, HwGfn(1 << 18), Level::k1G, table);
  const MmuLock::Exclusive lock(t.mmu_lock);
  EXPECT_TRUE(batch.Finish(lock).ok());
  EXPECT_EQ(flusher.used_at_flush, 2u);
  EXPECT_EQ(flusher.flushed_first, HwGfn(1 << 18));
  EXPECT_EQ(flusher.flushed_count, FramesPerEntry(Level::k1G));
  EXPECT_EQ(t.pool.stats().used, 1u);
}

TEST(FlushBatchTest, NeighbouringLeavesAreRemovedInOneCall) {
  TablesFixture t;
  FakeExternalTables external(MemoryKind::kPrivate, t.log);
  t.root.external = &external;
  FlushBatch batch = t.Batch();
  for (const uint64_t gfn : {4, 5, 6, 9}) batch.AddLeaf(t.root, HwGfn(gfn), Level::k4K);
  const MmuLock::Exclusive lock(t.mmu_lock);
  EXPECT_TRUE(batch.Finish(lock).ok());
  EXPECT_EQ(t.log.Take(),
            (Calls{"flush private 0x4+6", "remove private 0x4+3", "remove private 0x9+1"}));
}

TEST(FlushBatchTest, ExternalTablesSpeakOfFramesWithoutTheAlias) {
  TablesFixture t;
  FakeExternalTables external(MemoryKind::kPrivate, t.log);
  t.root.external = &external;
  t.root.base = HwGfn(uint64_t{1} << 34);
  FlushBatch batch = t.Batch();
  batch.AddLeaf(t.root, t.root.base + 4, Level::k4K);
  const MmuLock::Exclusive lock(t.mmu_lock);
  EXPECT_TRUE(batch.Finish(lock).ok());
  EXPECT_EQ(t.log.Take(), (Calls{"flush private 0x400000004+1", "remove private 0x4+1"}));
}

TEST(FlushBatchTest, DestroyingAnUnfinishedBatchIsAReportedBug) {
  TablesFixture t;
  {
    FlushBatch batch = t.Batch();
    batch.AddLeaf(t.root, HwGfn(4), Level::k4K);
  }
  EXPECT_EQ(t.bugs.bugs.size(), 1u);
  { FlushBatch empty = t.Batch(); }
  EXPECT_EQ(t.bugs.bugs.size(), 1u);
}

TEST(FlushBatchTest, ARemovalThatFailsTwiceIsAReportedBugAndOtherRangesStillGo) {
  TablesFixture t;
  FakeExternalTables external(MemoryKind::kPrivate, t.log);
  external.fail_removes = 2;
  t.root.external = &external;
  FlushBatch batch = t.Batch();
  batch.AddLeaf(t.root, HwGfn(4), Level::k4K);
  batch.AddLeaf(t.root, HwGfn(9), Level::k4K);
  const MmuLock::Exclusive lock(t.mmu_lock);
  EXPECT_FALSE(batch.Finish(lock).ok());
  EXPECT_EQ(t.bugs.bugs.size(), 1u);
  EXPECT_EQ(t.log.Take(), (Calls{"flush private 0x4+6", "remove private 0x4+1",
                                 "remove private 0x4+1", "remove private 0x9+1"}));
}

}  // namespace
}  // namespace twinroot::mmu
