#include "mmu/tables/entry_change.h"

#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <thread>
#include <vector>

#include "mmu/engine/make_entry.h"
#include "tests/mmu/tables/tables_fixture.h"

namespace twinroot::mmu {
namespace {

const EptEntry kLeaf = MakeLeaf(Pfn(1 << 18), Level::k1G, {});
const EptEntry kMark(EptEntry::kWrite | EptEntry::kExecute | (uint64_t{3} << 12));

TEST(EntryChangeTest, LinkNamesTheChildAndCountsIt) {
  TablesFixture t;
  Table& child = t.LinkNew(*t.root.table, 2, Gfn((2 << 27) + 5));
  EXPECT_EQ(t.root.table->slots[2].Load(),
            EptEntry(EptEntry::Table(child.hpa).raw() | kMmuPresent));
  EXPECT_EQ(StateOf(t.root.table->slots[2].Load(), Level::k512G), SlotState::kLink);
  EXPECT_EQ(child.identity, ChildIdentity(t.root.table->identity, t.root, Gfn(2 << 27)));
  EXPECT_EQ(child.level(), Level::k1G);
  EXPECT_EQ(child.parent, t.root.table);
  EXPECT_EQ(t.tables(), 2u);
}

TEST(EntryChangeTest, ALostRaceReturnsRacedAndCountsNothing) {
  TablesFixture t;
  Table& first = t.LinkNew(*t.root.table, 2, Gfn(2 << 27));
  Table& second = t.NewTable();
  EntrySlot& slot = t.root.table->slots[2];
  const EptEntry link = slot.Load();
  const EpochGuard guard;
  EXPECT_EQ(t.change.Link(guard, t.root, *t.root.table, slot, kEmptyEntry, second, Gfn(2 << 27)),
            ChangeResult::kRaced);
  EXPECT_EQ(t.change.Freeze(guard, slot, kEmptyEntry), ChangeResult::kRaced);
  EXPECT_EQ(t.tables(), 2u);
  EXPECT_EQ(slot.Load(), link);
  EXPECT_EQ(link.address(), first.hpa);
}

TEST(EntryChangeTest, AMarkOfMissingMemoryGivesWayToALinkAndToALeaf) {
  TablesFixture t;
  Table& table = t.LinkNew(*t.root.table, 0, Gfn(0));
  for (const uint64_t index : {3, 4}) RawWord(table.slots[index]) = kMark.raw();
  const EpochGuard guard;
  ASSERT_EQ(StateOf(kMark, Level::k1G), SlotState::kMmio);
  Table& child = t.NewTable();
  EXPECT_EQ(t.change.Link(guard, t.root, table, table.slots[3], kMark, child, Gfn(3 << 18)),
            ChangeResult::kDone);
  ASSERT_EQ(t.change.Freeze(guard, table.slots[4], kMark), ChangeResult::kDone);
  t.change.Publish(t.root, table.slots[4], Level::k1G, kMark, kLeaf);
  EXPECT_EQ(t.tables(), 3u);
  EXPECT_EQ(t.leaves(Level::k1G), 1u);
}

class LeafChangeTest : public testing::Test {
 protected:
  EntrySlot& Slot(uint64_t index) { return table_.slots[index]; }
  ChangeResult SetLeaf(uint64_t index) { return t_.SetLeaf(Slot(index), Level::k1G, kLeaf); }
  uint64_t leaves() { return t_.leaves(Level::k1G); }

  TablesFixture t_;
  Table& table_ = t_.LinkNew(*t_.root.table, 0, Gfn(0));
};

TEST_F(LeafChangeTest, OneOfManyWinsAnEmptySlot) {
  std::atomic<uint64_t> won{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (uint64_t index = 0; index < kEntriesPerTable; ++index) {
        if (SetLeaf(index) == ChangeResult::kDone) ++won;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(won, kEntriesPerTable);
  EXPECT_EQ(leaves(), kEntriesPerTable);
}

TEST_F(LeafChangeTest, AFrozenSlotIsNotCountedUntilItIsPublished) {
  const EpochGuard guard;
  ASSERT_EQ(t_.change.Freeze(guard, Slot(3), kEmptyEntry), ChangeResult::kDone);
  EXPECT_EQ(Slot(3).Load(), kFrozenEntry);
  EXPECT_EQ(SetLeaf(3), ChangeResult::kRaced);
  EXPECT_EQ(leaves(), 0u);
  t_.change.Publish(t_.root, Slot(3), Level::k1G, kEmptyEntry, kLeaf);
  EXPECT_EQ(Slot(3).Load(), kLeaf);
  EXPECT_EQ(leaves(), 1u);
  // The same leaf once more, as an external table that lost it needs: counted once.
  ASSERT_EQ(t_.change.Freeze(guard, Slot(3), kLeaf), ChangeResult::kDone);
  t_.change.Publish(t_.root, Slot(3), Level::k1G, kLeaf, kLeaf);
  EXPECT_EQ(leaves(), 1u);
}

TEST_F(LeafChangeTest, ARestoredSlotIsAsItWas) {
  const EpochGuard guard;
  ASSERT_EQ(t_.change.Freeze(guard, Slot(3), kEmptyEntry), ChangeResult::kDone);
  t_.change.Restore(Slot(3), kEmptyEntry);
  EXPECT_EQ(Slot(3).Load(), kEmptyEntry);
  ASSERT_EQ(SetLeaf(3), ChangeResult::kDone);
  ASSERT_EQ(t_.change.Freeze(guard, Slot(3), kLeaf), ChangeResult::kDone);
  t_.change.Restore(Slot(3), kLeaf);
  EXPECT_EQ(Slot(3).Load(), kLeaf);
  EXPECT_EQ(leaves(), 1u);
}

TEST_F(LeafChangeTest, RightsChangeOnlyAgainstTheWordThatWasRead) {
  ASSERT_EQ(SetLeaf(3), ChangeResult::kDone);
  const EpochGuard guard;
  const EptEntry less = WithoutWrite(kLeaf);
  RawWord(Slot(3)) |= EptEntry::kAccessed;
  EXPECT_EQ(t_.change.ChangeRights(guard, Slot(3), kLeaf, less), ChangeResult::kRaced);
  const EptEntry now = Slot(3).Load();
  EXPECT_EQ(t_.change.ChangeRights(guard, Slot(3), now, WithoutWrite(now)), ChangeResult::kDone);
  EXPECT_FALSE(Slot(3).Load().access().write());
  EXPECT_TRUE(Slot(3).Load().accessed());
}

TEST_F(LeafChangeTest, ClearGivesTheLastAccessedAndDirtyBitsThatAProcessorSet) {
  for (int round = 0; round < 200; ++round) {
    ASSERT_EQ(SetLeaf(3), ChangeResult::kDone);
    auto& word = RawWord(Slot(3));
    bool set_in_time = false;
    std::thread processor([&] {
      // As hardware does: sets D only in an entry that is still present.
      uint64_t old = word.load();
      while ((old & EptEntry::kRightsMask) != 0) {
        if (word.compare_exchange_weak(old, old | EptEntry::kAccessed | EptEntry::kDirty)) {
          set_in_time = true;
          break;
        }
      }
    });
    std::optional<EptEntry> last;
    {
      const Turn turn(t_.turn_mutex);
      last = t_.change.ClearLeaf(turn, t_.root, Slot(3), Level::k1G);
    }
    processor.join();
    EXPECT_EQ(last->dirty(), set_in_time);
    ASSERT_EQ(Slot(3).Load(), kEmptyEntry);
  }
  EXPECT_EQ(leaves(), 0u);
}

TEST_F(LeafChangeTest, SettleAndClearWaitForWhoeverHoldsTheSlotFrozen) {
  for (int round = 0; round < 50; ++round) {
    {
      const EpochGuard guard;
      ASSERT_EQ(t_.change.Freeze(guard, Slot(3), kEmptyEntry), ChangeResult::kDone);
    }
    std::thread fault([&] { t_.change.Publish(t_.root, Slot(3), Level::k1G, kEmptyEntry, kLeaf); });
    const Turn turn(t_.turn_mutex);
    EXPECT_EQ(EntryChange::Settle(turn, Slot(3)), kLeaf);
    EXPECT_EQ(t_.change.ClearLeaf(turn, t_.root, Slot(3), Level::k1G), kLeaf);
    fault.join();
    ASSERT_EQ(Slot(3).Load(), kEmptyEntry);
    ASSERT_EQ(leaves(), 0u);
  }
}

// A fault may split a large leaf for a write while the holder of the Turn is about to clear it.
TEST_F(LeafChangeTest, ALeafThatAFaultHasSplitIsNotClearedAsALeaf) {
  int split_first = 0;
  for (int round = 0; round < 200; ++round) {
    ASSERT_EQ(SetLeaf(3), ChangeResult::kDone);
    Table& child = t_.NewTable();
    std::atomic<bool> start{false};
    ChangeResult split = ChangeResult::kRaced;
    std::thread fault([&] {
      while (!start) std::this_thread::yield();
      const EpochGuard guard;
      split = t_.change.Split(guard, t_.root, table_, Slot(3), kLeaf, child, Gfn(3 << 18),
                              MakeSplitLeaf(kLeaf, Level::k1G));
    });
    const Turn turn(t_.turn_mutex);
    start = true;
    if (round % 2 == 0) {
      while (Slot(3).Load() == kLeaf) std::this_thread::yield();
    }
    const std::optional<EptEntry> last = t_.change.ClearLeaf(turn, t_.root, Slot(3), Level::k1G);
    fault.join();
    ASSERT_EQ(last.has_value(), split == ChangeResult::kRaced);
    ASSERT_EQ(leaves(), 0u);
    ASSERT_EQ(t_.leaves(Level::k2M), last ? 0 : kEntriesPerTable);
    if (!last) {
      ++split_first;
      ASSERT_EQ(StateOf(Slot(3).Load(), Level::k1G), SlotState::kLink);
      t_.change.Detach(turn, Slot(3));
      t_.change.Forget(turn, t_.root, Level::k2M, kEntriesPerTable);
    }
    t_.pool.Free(child);
  }
  EXPECT_GE(split_first, 100);
}

TEST_F(LeafChangeTest, ClearMarkTakesMarksOnly) {
  const Turn turn(t_.turn_mutex);
  ASSERT_EQ(SetLeaf(3), ChangeResult::kDone);
  RawWord(Slot(4)) = kMark.raw();
  for (const uint64_t index : {2, 3, 4}) t_.change.ClearMark(turn, Slot(index));
  EXPECT_EQ(Slot(2).Load(), kEmptyEntry);
  EXPECT_EQ(Slot(3).Load(), kLeaf);
  EXPECT_EQ(Slot(4).Load(), kEmptyEntry);
}

TEST_F(LeafChangeTest, F9_AMarkThatAFaultPutsBackDoesNotOutliveTheClear) {
  const Turn turn(t_.turn_mutex);
  for (int round = 0; round < 200; ++round) {
    RawWord(Slot(4)) = kMark.raw();
    std::thread fault([this] {
      const EpochGuard guard;
      if (t_.change.Freeze(guard, Slot(4), kMark) == ChangeResult::kRaced) return;
      std::this_thread::yield();
      t_.change.Restore(Slot(4), kMark);
    });
    t_.change.ClearMark(turn, Slot(4));
    fault.join();
    ASSERT_EQ(Slot(4).Load(), kEmptyEntry);
  }
}

TEST_F(LeafChangeTest, ADetachedTableKeepsItsPlaceInTheBooksUntilItIsForgotten) {
  ASSERT_EQ(SetLeaf(3), ChangeResult::kDone);
  const Turn turn(t_.turn_mutex);
  t_.change.Detach(turn, t_.root.table->slots[0]);
  EXPECT_EQ(t_.root.table->slots[0].Load(), kEmptyEntry);
  EXPECT_EQ(t_.tables(), 2u);
  EXPECT_EQ(leaves(), 1u);
  t_.change.Forget(turn, t_.root, Level::k1G, 1);
  EXPECT_EQ(t_.tables(), 1u);
  EXPECT_EQ(leaves(), 0u);
}

TEST_F(LeafChangeTest, SealTakesAnEmptyTableWholeAndLeavesAnyOtherAsItIs) {
  const Turn turn(t_.turn_mutex);
  ASSERT_EQ(SetLeaf(511), ChangeResult::kDone);
  EXPECT_FALSE(t_.change.Seal(turn, table_.slots, 5));
  for (uint64_t i = 0; i < 511; ++i) ASSERT_EQ(Slot(i).Load(), kEmptyEntry);
  t_.change.ClearLeaf(turn, t_.root, Slot(511), Level::k1G);
  EXPECT_TRUE(t_.change.Seal(turn, table_.slots, 5));
  for (uint64_t i = 0; i < kEntriesPerTable; ++i) ASSERT_EQ(Slot(i).Load(), kFrozenEntry);
  EXPECT_EQ(SetLeaf(7), ChangeResult::kRaced);
}

TEST_F(LeafChangeTest, ASlotThatAFaultHoldsFrozenPinsItsTable) {
  const EpochGuard guard;
  ASSERT_EQ(t_.change.Freeze(guard, Slot(400), kEmptyEntry), ChangeResult::kDone);
  const Turn turn(t_.turn_mutex);
  EXPECT_FALSE(t_.change.Seal(turn, table_.slots, 5));
  for (uint64_t i = 0; i < 400; ++i) ASSERT_EQ(Slot(i).Load(), kEmptyEntry);
  t_.change.Restore(Slot(400), kEmptyEntry);
  EXPECT_TRUE(t_.change.Seal(turn, table_.slots, 5));
}

TEST_F(LeafChangeTest, EitherTheSealOrTheFaultsWin) {
  int sealed = 0;
  for (int round = 0; round < 200; ++round) {
    std::atomic<int> won{0};
    std::atomic<bool> start{false};
    std::vector<std::thread> faults;
    for (int i = 0; i < 2; ++i) {
      faults.emplace_back([&, i] {
        while (!start) std::this_thread::yield();
        for (uint64_t index = i; index < kEntriesPerTable; index += 97) {
          if (SetLeaf(index) == ChangeResult::kDone) ++won;
        }
      });
    }
    const Turn turn(t_.turn_mutex);
    start = true;
    if (round % 2 == 0) std::this_thread::yield();
    const bool done = t_.change.Seal(turn, table_.slots, 5);
    for (std::thread& fault : faults) fault.join();
    ASSERT_EQ(done, won == 0);
    ASSERT_EQ(leaves(), static_cast<uint64_t>(won));
    sealed += done;
    for (uint64_t i = 0; i < kEntriesPerTable; ++i) {
      if (Slot(i).Load() == kLeaf) {
        t_.change.ClearLeaf(turn, t_.root, Slot(i), Level::k1G);
      } else {
        ASSERT_EQ(Slot(i).Load(), done ? kFrozenEntry : kEmptyEntry);
        RawWord(Slot(i)) = 0;
      }
    }
  }
  RecordProperty("sealed", sealed);
}

TEST_F(LeafChangeTest, SplitGivesTheSameTranslationsOneLevelDown) {
  const EptEntry large = MakeLeaf(Pfn(5 << 18), Level::k1G, {.withhold_write = true});
  ASSERT_EQ(t_.SetLeaf(Slot(5), Level::k1G, large), ChangeResult::kDone);
  Table& child = t_.NewTable();
  const EpochGuard guard;
  const EptEntry first = MakeSplitLeaf(large, Level::k1G);
  EXPECT_EQ(t_.change.Split(guard, t_.root, table_, Slot(5), kLeaf, child, Gfn(5 << 18), first),
            ChangeResult::kRaced);
  for (uint64_t i = 0; i < kEntriesPerTable; ++i) ASSERT_EQ(child.slots[i].Load(), kEmptyEntry);
  ASSERT_EQ(t_.change.Split(guard, t_.root, table_, Slot(5), large, child, Gfn(5 << 18), first),
            ChangeResult::kDone);
  EXPECT_EQ(StateOf(Slot(5).Load(), Level::k1G), SlotState::kLink);
  for (uint64_t i = 0; i < kEntriesPerTable; ++i) {
    ASSERT_EQ(child.slots[i].Load(),
              MakeLeaf(Pfn((5 << 18) + i * 512), Level::k2M, {.withhold_write = true}));
  }
  EXPECT_EQ(leaves(), 0u);
  EXPECT_EQ(t_.leaves(Level::k2M), kEntriesPerTable);
  EXPECT_EQ(t_.tables(), 3u);
}

TEST_F(LeafChangeTest, CoverPutsALeafOverATableThatStaysAsItIs) {
  Table& child = t_.LinkNew(table_, 5, Gfn(5 << 18));
  const EptEntry small = MakeLeaf(Pfn(5 << 18), Level::k2M, {});
  ASSERT_EQ(t_.SetLeaf(child.slots[0], Level::k2M, small), ChangeResult::kDone);
  RawWord(Slot(5)) |= EptEntry::kAccessed;
  const Turn turn(t_.turn_mutex);
  t_.change.Cover(turn, t_.root, Slot(5), Level::k1G, kLeaf);
  EXPECT_EQ(Slot(5).Load(), kLeaf);
  EXPECT_EQ(leaves(), 1u);
  EXPECT_EQ(child.slots[0].Load(), small);
}

}  // namespace
}  // namespace twinroot::mmu
