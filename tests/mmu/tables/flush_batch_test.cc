#include "mmu/tables/flush_batch.h"

#include <gtest/gtest.h>

#include <thread>
#include <utility>

#include "mmu/engine/make_entry.h"
#include "tests/mmu/tables/tables_fixture.h"

namespace twinroot::mmu {
namespace {

using Calls = std::vector<std::string>;

absl::Status Finish(TablesFixture& t, FlushBatch& batch) {
  const Turn turn(t.turn_mutex);
  return batch.Finish(turn);
}

TEST(FlushBatchTest, OneFlushCoversEverythingOfARoot) {
  TablesFixture t;
  FlushBatch batch = t.Batch();
  batch.AddLeaf(t.root, HwGfn(40), Level::k4K);
  batch.AddLeaf(t.root, HwGfn(1024), Level::k2M);
  batch.AddFlush(t.root, HwGfn(7), 1);
  EXPECT_TRUE(Finish(t, batch).ok());
  EXPECT_EQ(t.log.Take(), (Calls{"flush private 0x7+1529"}));
  EXPECT_EQ(t.counts.Sum(VmCount::kFlushRange), 1u);
  EXPECT_TRUE(Finish(t, batch).ok());
  EXPECT_EQ(t.log.Take(), Calls{});
}

TEST(FlushBatchTest, A5_EveryAliasGetsAFlushOfItsOwn) {
  TablesFixture t;
  Root fetches = t.root;
  fetches.execute_only = true;
  fetches.base = HwGfn(uint64_t{1} << 30);
  FlushBatch batch = t.Batch();
  batch.AddLeaf(t.root, HwGfn(40), Level::k4K);
  batch.AddLeaf(fetches, fetches.base + 40, Level::k4K);
  EXPECT_TRUE(Finish(t, batch).ok());
  EXPECT_EQ(t.log.Take(), (Calls{"flush private 0x28+1", "flush private 0x40000028+1"}));
}

TEST(FlushBatchTest, AnEmptyBatchFlushesNothing) {
  TablesFixture t;
  FlushBatch batch = t.Batch();
  EXPECT_TRUE(Finish(t, batch).ok());
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

TEST(FlushBatchTest, TablesAreRetiredAfterAFlushOfEverythingBelowThem) {
  TablesFixture t;
  LookingFlusher flusher(t.pool);
  FlushBatch batch(t.pool, t.change, &flusher, t.counts, t.bugs);
  Table& table = t.NewTable();
  batch.AddTable(t.root, HwGfn(1 << 18), Level::k1G, table);
  EXPECT_TRUE(Finish(t, batch).ok());
  EXPECT_EQ(flusher.used_at_flush, 2u);
  EXPECT_EQ(flusher.flushed_first, HwGfn(1 << 18));
  EXPECT_EQ(flusher.flushed_count, FramesPerEntry(Level::k1G));
  EXPECT_EQ(t.pool.stats().used, 1u);
}

// A table of 2M leaves, detached whole.
struct Subtree {
  explicit Subtree(TablesFixture& t) {
    Table& top = t.LinkNew(*t.root.table, 0, Gfn(0));
    table = &t.LinkNew(top, 3, Gfn(3 << 18));
    small = &t.LinkNew(*table, 9, Gfn((3 << 18) + 9 * 512));
    for (const uint64_t i : {1, 2}) {
      EXPECT_EQ(t.SetLeaf(table->slots[i], Level::k2M,
                          MakeLeaf(Pfn((3 << 18) + i * 512), Level::k2M, {})),
                ChangeResult::kDone);
    }
    EXPECT_EQ(t.SetLeaf(small->slots[5], Level::k4K, MakeLeaf(Pfn(77), Level::k4K, {})),
              ChangeResult::kDone);
    slot = &top.slots[3];
  }
  Table* table;
  Table* small;
  EntrySlot* slot;
};

TEST(FlushBatchTest, ASubtreeIsTakenDownWithAllThatStandsInIt) {
  TablesFixture t;
  Subtree subtree(t);
  RawWord(subtree.small->slots[5]) |= EptEntry::kDirty;
  std::vector<std::pair<uint64_t, Level>> heard;
  bool dirty = false;
  FlushBatch batch = t.Batch([&](Gfn gfn, Level level, EptEntry leaf) {
    heard.emplace_back(gfn.value, level);
    dirty = dirty || leaf.dirty();
    if (heard.size() == 1) {
      EXPECT_EQ(t.log.Take(), Calls{"flush private 0xc0000+262144"}) << "flushed before";
    }
  });
  {
    const Turn turn(t.turn_mutex);
    t.change.Detach(turn, *subtree.slot);
    batch.AddSubtree(t.root, HwGfn(3 << 18), Level::k1G, *subtree.table);
    EXPECT_EQ(t.leaves(Level::k2M), 2u) << "still in the books";
    EXPECT_TRUE(batch.Finish(turn).ok());
  }
  const uint64_t first = 3 << 18;
  EXPECT_EQ(heard, (std::vector<std::pair<uint64_t, Level>>{{first + 512, Level::k2M},
                                                            {first + 1024, Level::k2M},
                                                            {first + 9 * 512 + 5, Level::k4K}}));
  EXPECT_TRUE(dirty);
  EXPECT_EQ(t.leaves(Level::k2M), 0u);
  EXPECT_EQ(t.leaves(Level::k4K), 0u);
  EXPECT_EQ(t.tables(), 2u);
  EXPECT_EQ(t.pool.stats().used, 2u);
}

TEST(FlushBatchTest, ASubtreeWaitsForFaultsInsideItAndForSlotsTheyHoldFrozen) {
  TablesFixture t;
  FakeExternalTables external(MemoryKind::kPrivate, t.log);
  t.root.external = &external;
  Subtree subtree(t);
  const EptEntry leaf = MakeLeaf(Pfn(5 << 9), Level::k2M, {});
  EntrySlot& slot = subtree.table->slots[5];
  {
    const EpochGuard guard;
    ASSERT_EQ(t.change.Freeze(guard, slot, kEmptyEntry), ChangeResult::kDone);
  }
  bool published = false;
  std::vector<uint64_t> heard;
  FlushBatch batch = t.Batch([&](Gfn gfn, Level, EptEntry) { heard.push_back(gfn.value); });
  std::thread fault;
  {
    const Turn turn(t.turn_mutex);
    t.change.Detach(turn, *subtree.slot);
    batch.AddSubtree(t.root, HwGfn(3 << 18), Level::k1G, *subtree.table);
    fault = std::thread([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      published = true;
      t.change.Publish(t.root, slot, Level::k2M, kEmptyEntry, leaf);
    });
    EXPECT_TRUE(batch.Finish(turn).ok());
    EXPECT_TRUE(published);
  }
  fault.join();
  EXPECT_EQ(heard.size(), 4u);
  EXPECT_EQ(t.leaves(Level::k2M), 0u);
  EXPECT_EQ(t.log.Take(), (Calls{"flush private 0xc0000+262144", "remove private 0xc0000+262144"}));
}

TEST(FlushBatchTest, WhatAProcessorMarkedInACoveredTableGoesToTheLeafThatCoversIt) {
  TablesFixture t;
  Subtree subtree(t);
  RawWord(subtree.small->slots[5]) |= EptEntry::kDirty;
  const EptEntry leaf = MakeLeaf(Pfn(3 << 18), Level::k1G, {});
  int heard = 0;
  FlushBatch batch = t.Batch([&](Gfn, Level, EptEntry) { ++heard; });
  {
    const Turn turn(t.turn_mutex);
    t.change.Cover(turn, t.root, *subtree.slot, Level::k1G, leaf);
    batch.AddCovered(t.root, HwGfn(3 << 18), Level::k1G, *subtree.slot, *subtree.table);
    EXPECT_TRUE(batch.Finish(turn).ok());
  }
  EXPECT_TRUE(subtree.slot->Load().dirty());
  EXPECT_FALSE(subtree.slot->Load().accessed());
  EXPECT_EQ(heard, 0) << "nothing was unmapped";
  EXPECT_EQ(t.leaves(Level::k1G), 1u);
  EXPECT_EQ(t.leaves(Level::k2M) + t.leaves(Level::k4K), 0u);
  EXPECT_EQ(t.tables(), 2u);
}

TEST(FlushBatchTest, NeighbouringLeavesAreRemovedInOneCall) {
  TablesFixture t;
  FakeExternalTables external(MemoryKind::kPrivate, t.log);
  t.root.external = &external;
  FlushBatch batch = t.Batch();
  for (const uint64_t gfn : {4, 5, 6, 9}) batch.AddLeaf(t.root, HwGfn(gfn), Level::k4K);
  EXPECT_TRUE(Finish(t, batch).ok());
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
  EXPECT_TRUE(Finish(t, batch).ok());
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
  EXPECT_FALSE(Finish(t, batch).ok());
  EXPECT_EQ(t.bugs.bugs.size(), 1u);
  EXPECT_EQ(t.log.Take(), (Calls{"flush private 0x4+6", "remove private 0x4+1",
                                 "remove private 0x4+1", "remove private 0x9+1"}));
}

}  // namespace
}  // namespace twinroot::mmu
