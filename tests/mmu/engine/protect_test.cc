// Taking W, D, A and all rights from leaves on bare tables.
#include "mmu/engine/protect.h"

#include <gtest/gtest.h>

#include "mmu/engine/leaves.h"
#include "mmu/engine/make_entry.h"
#include "mmu/engine/split.h"
#include "tests/mmu/tables/tables_fixture.h"

namespace twinroot::mmu {
namespace {

constexpr Pfn kPfn{uint64_t{1} << 20};

// Frames 0 to 511 in 4K, from 512 on one leaf of 2M.
class ProtectTest : public testing::Test {
 protected:
  // `base`: where the walk finds frame 0.
  explicit ProtectTest(uint64_t base = 0) {
    t_.root.base = HwGfn(base);
    const Table& l3 = t_.LinkNew(*t_.root.table, EptIndex(HwGfn(base), Level::k512G), Gfn(0));
    const Table& l2 = t_.LinkNew(l3, EptIndex(HwGfn(base), Level::k1G), Gfn(0));
    small_ = &t_.LinkNew(l2, 0, Gfn(0));
    for (uint64_t i = 0; i < 512; ++i) {
      t_.SetLeaf(small_->slots[i], Level::k4K, Flagged(MakeLeaf(kPfn + i, Level::k4K, {})));
    }
    large_ = &l2.slots[1];
    t_.SetLeaf(*large_, Level::k2M, Flagged(MakeLeaf(kPfn + 512, Level::k2M, {})));
  }
  static EptEntry Flagged(EptEntry leaf) {
    return EptEntry(leaf.raw() | EptEntry::kAccessed | EptEntry::kDirty);
  }
  std::vector<std::pair<uint64_t, uint64_t>> Take(GfnRange range, Taken what) {
    std::vector<std::pair<uint64_t, uint64_t>> taken;
    const Turn turn(t_.turn_mutex);
    FlushBatch batch = t_.Batch();
    TakeFromRange(turn, t_.pool, t_.change, t_.root, range, what, batch,
                  [&](Gfn first, uint64_t n) { taken.emplace_back(first.value, n); });
    EXPECT_TRUE(batch.Finish(turn).ok());
    return taken;
  }
  void TakePages(uint64_t first, const std::vector<uint64_t>& words, Taken what) {
    const Turn turn(t_.turn_mutex);
    FlushBatch batch = t_.Batch();
    TakeFromPages(turn, t_.pool, t_.change, t_.root, Gfn(first), words, what, batch);
    EXPECT_TRUE(batch.Finish(turn).ok());
  }
  bool Writable(uint64_t i) const { return small_->slots[i].Load().access().write(); }

  TablesFixture t_{64};
  const Table* small_ = nullptr;
  EntrySlot* large_ = nullptr;
};

using Pages = std::vector<std::pair<uint64_t, uint64_t>>;

TEST_F(ProtectTest, TakesFromEveryLeafOfTheRangeAndFlushesItOnce) {
  EXPECT_EQ(Take(Frames(510, 3), Taken::kWrite), (Pages{{510, 1}, {511, 1}, {512, 512}}));
  EXPECT_EQ(t_.log.Take(), std::vector<std::string>{"flush private 0x1fe+514"});
  EXPECT_TRUE(Writable(509));
  EXPECT_FALSE(Writable(510));
  EXPECT_TRUE(MayWrite(small_->slots[510].Load()) && MayWrite(large_->Load()));
  EXPECT_TRUE(Take(Frames(510, 3), Taken::kWrite).empty()) << "nothing is taken twice";
  EXPECT_TRUE(t_.log.Take().empty()) << "nothing taken, nothing flushed";
}

TEST_F(ProtectTest, F2_WriteOfLargeLeavesSmallPagesAlone) {
  EXPECT_EQ(Take(Frames(0, 1024), Taken::kWriteOfLarge), (Pages{{512, 512}}));
  EXPECT_TRUE(Writable(0) && Writable(511));
  EXPECT_FALSE(large_->Load().access().write());
}

TEST_F(ProtectTest, F3_DirtyIsTakenWithAFlushAndRightsStay) {
  EXPECT_EQ(Take(Frames(3, 1), Taken::kDirty), (Pages{{3, 1}}));
  EXPECT_EQ(t_.log.Take().size(), 1u);
  EXPECT_FALSE(small_->slots[3].Load().dirty());
  EXPECT_TRUE(small_->slots[3].Load().accessed() && Writable(3));
}

TEST_F(ProtectTest, F6_AccessedIsAHintAndFlushesNothing) {
  EXPECT_EQ(Take(Frames(3, 1), Taken::kAccessed), (Pages{{3, 1}}));
  EXPECT_TRUE(t_.log.Take().empty());
  EXPECT_FALSE(small_->slots[3].Load().accessed());
  EXPECT_TRUE(small_->slots[3].Load().dirty());
}

TEST_F(ProtectTest, F6_RightsAreSavedWithAFlush) {
  EXPECT_EQ(Take(Frames(3, 1), Taken::kRights), (Pages{{3, 1}}));
  EXPECT_EQ(t_.log.Take().size(), 1u);
  const EptEntry leaf = small_->slots[3].Load();
  EXPECT_TRUE(leaf.access().empty() && HasSavedAccess(leaf) && MayWrite(leaf));
  EXPECT_EQ(StateOf(leaf, Level::k4K), SlotState::kLeaf);
  EXPECT_TRUE(Take(Frames(3, 1), Taken::kRights).empty());
}

TEST_F(ProtectTest, F3_OnlyThePagesWhoseBitsAreSetLoseW) {
  TakePages(64, {uint64_t{1} << 63 | 1, 0, 2}, Taken::kWrite);
  for (uint64_t i = 0; i < 512; ++i) EXPECT_EQ(Writable(i), i != 64 && i != 127 && i != 193) << i;
  EXPECT_EQ(t_.log.Take(), std::vector<std::string>{"flush private 0x40+130"});
  EXPECT_TRUE(large_->Load().access().write());
}

TEST_F(ProtectTest, F3_ALargeLeafLosesWForAnyOfItsPages) {
  TakePages(1024 - 64, {uint64_t{1} << 63}, Taken::kWrite);
  EXPECT_FALSE(large_->Load().access().write());
  EXPECT_EQ(t_.log.Take(), std::vector<std::string>{"flush private 0x200+512"});
}

// The entry of the root table that covers the alias also covers frames below it.
class ProtectInsideAnEntryTest : public ProtectTest {
 protected:
  ProtectInsideAnEntryTest() : ProtectTest(uint64_t{1} << 24) {}
};

TEST_F(ProtectInsideAnEntryTest, A4_AnAliasThatBeginsThereIsReachedToo) {
  TakePages(64, {1}, Taken::kWrite);
  EXPECT_FALSE(Writable(64));
  EXPECT_EQ(t_.log.Take(), std::vector<std::string>{"flush private 0x1000040+1"});
}

TEST_F(ProtectTest, AnEmptyPlaceHasNothingToTake) {
  EXPECT_TRUE(Take(Frames(2048, 1 << 20), Taken::kWrite).empty());
  TakePages(2048, {~uint64_t{0}}, Taken::kDirty);
  EXPECT_TRUE(t_.log.Take().empty());
}

}  // namespace
}  // namespace twinroot::mmu
