#include "mmu/tables/entry_change.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "tests/mmu/tables/tables_fixture.h"

namespace twinroot::mmu {
namespace {

const EptEntry kLeaf =
    EptEntry::Leaf(Hpa(0x4000'0000), Level::k1G, Access::All(), MemType::kWriteBack);

TEST(EntryChangeTest, LinkNamesTheChildAndCountsIt) {
  TablesFixture t;
  Table& child = t.NewTable();
  const MmuLock::Shared lock(t.mmu_lock);
  ASSERT_EQ(t.change.Link(lock, *t.root.table, 2, child, Gfn((2 << 27) + 5)), ChangeResult::kDone);
  EXPECT_EQ(t.root.table->slots[2].Load(), EptEntry::Table(child.hpa));
  EXPECT_EQ(child.identity, ChildIdentity(t.root.table->identity, Gfn(2 << 27)));
  EXPECT_EQ(child.parent, t.root.table);
  EXPECT_EQ(t.root.table->present, 1u);
  EXPECT_EQ(t.counts.tables, 2u);
}

TEST(EntryChangeTest, ALostRaceReturnsRacedAndCountsNothing) {
  TablesFixture t;
  Table& first = t.NewTable();
  Table& second = t.NewTable();
  const MmuLock::Shared lock(t.mmu_lock);
  ASSERT_EQ(t.change.Link(lock, *t.root.table, 2, first, Gfn(2 << 27)), ChangeResult::kDone);
  EXPECT_EQ(t.change.Link(lock, *t.root.table, 2, second, Gfn(2 << 27)), ChangeResult::kRaced);
  EXPECT_EQ(t.change.SetLeaf(lock, *t.root.table, 2, kLeaf), ChangeResult::kRaced);
  EXPECT_EQ(t.change.Freeze(lock, *t.root.table, 2), ChangeResult::kRaced);
  EXPECT_EQ(t.root.table->present, 1u);
  EXPECT_EQ(t.counts.tables, 2u);
  EXPECT_EQ(t.root.table->slots[2].Load(), EptEntry::Table(first.hpa));
}

class LeafChangeTest : public testing::Test {
 protected:
  LeafChangeTest() {
    const MmuLock::Shared lock(t_.mmu_lock);
    EXPECT_EQ(t_.change.Link(lock, *t_.root.table, 0, table_, Gfn(0)), ChangeResult::kDone);
  }
  TablesFixture t_;
  Table& table_ = t_.NewTable();
};

TEST_F(LeafChangeTest, OneOfManyWinsAnEmptySlot) {
  std::atomic<int> won{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      const MmuLock::Shared lock(t_.mmu_lock);
      for (uint64_t index = 0; index < kEntriesPerTable; ++index) {
        if (t_.change.SetLeaf(lock, table_, index, kLeaf) == ChangeResult::kDone) ++won;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(won, static_cast<int>(kEntriesPerTable));
  EXPECT_EQ(table_.present, kEntriesPerTable);
  EXPECT_EQ(t_.counts.leaves[0][2], kEntriesPerTable);
}

TEST_F(LeafChangeTest, AFrozenSlotIsNotCountedUntilItIsPublished) {
  const MmuLock::Shared lock(t_.mmu_lock);
  ASSERT_EQ(t_.change.Freeze(lock, table_, 3), ChangeResult::kDone);
  EXPECT_EQ(table_.slots[3].Load(), kFrozenEntry);
  EXPECT_EQ(t_.change.SetLeaf(lock, table_, 3, kLeaf), ChangeResult::kRaced);
  EXPECT_EQ(t_.counts.leaves[0][2], 0u);
  t_.change.Publish(lock, table_, 3, kLeaf);
  EXPECT_EQ(table_.slots[3].Load(), kLeaf);
  EXPECT_EQ(t_.counts.leaves[0][2], 1u);
}

TEST_F(LeafChangeTest, ARestoredSlotIsEmptyAgain) {
  const MmuLock::Shared lock(t_.mmu_lock);
  ASSERT_EQ(t_.change.Freeze(lock, table_, 3), ChangeResult::kDone);
  t_.change.Restore(lock, table_, 3);
  EXPECT_EQ(table_.slots[3].Load(), kEmptyEntry);
  EXPECT_EQ(table_.present, 0u);
  EXPECT_EQ(t_.change.SetLeaf(lock, table_, 3, kLeaf), ChangeResult::kDone);
}

TEST_F(LeafChangeTest, ClearGivesTheLastAccessedAndDirtyBitsThatAProcessorSet) {
  for (int round = 0; round < 200; ++round) {
    {
      const MmuLock::Shared lock(t_.mmu_lock);
      ASSERT_EQ(t_.change.SetLeaf(lock, table_, 3, kLeaf), ChangeResult::kDone);
    }
    auto* word = reinterpret_cast<std::atomic<uint64_t>*>(&table_.slots[3]);
    bool set_in_time = false;
    std::thread processor([&] {
      // As hardware does: sets D only in an entry that is still present.
      uint64_t old = word->load();
      while ((old & 7) != 0) {
        if (word->compare_exchange_weak(old, old | EptEntry::kAccessed | EptEntry::kDirty)) {
          set_in_time = true;
          break;
        }
      }
    });
    EptEntry last;
    {
      const MmuLock::Exclusive lock(t_.mmu_lock);
      last = t_.change.ClearLeaf(lock, table_, 3);
    }
    processor.join();
    EXPECT_EQ(last.dirty(), set_in_time);
    ASSERT_EQ(table_.slots[3].Load(), kEmptyEntry);
  }
  EXPECT_EQ(t_.counts.leaves[0][2], 0u);
}

TEST_F(LeafChangeTest, UnlinkLeavesAnEmptySlot) {
  const MmuLock::Exclusive lock(t_.mmu_lock);
  t_.change.Unlink(lock, *t_.root.table, 0, table_);
  EXPECT_EQ(t_.root.table->slots[0].Load(), kEmptyEntry);
  EXPECT_EQ(t_.root.table->present, 0u);
  EXPECT_EQ(t_.counts.tables, 1u);
}

}  // namespace
}  // namespace twinroot::mmu
