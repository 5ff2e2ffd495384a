// Splitting leaves on bare tables.
#include "mmu/engine/split.h"

#include <gtest/gtest.h>

#include "mmu/engine/leaves.h"
#include "mmu/engine/make_entry.h"
#include "tests/mmu/tables/tables_fixture.h"

namespace twinroot::mmu {
namespace {

constexpr Pfn kPfn{uint64_t{1} << 20};

class SplitTest : public testing::Test {
 protected:
  // A leaf at gfn 0 of `level`.
  void Put(EptEntry leaf, Level level) {
    const Table* table = t_.root.table;
    while (table->level() != level) table = &t_.LinkNew(*table, 0, Gfn(0));
    ASSERT_EQ(t_.SetLeaf(table->slots[0], level, leaf), ChangeResult::kDone);
    table_ = table;
  }
  SplitCounts Run(GfnRange range, Level target) {
    const Turn turn(t_.turn_mutex);
    SplitCounts counts;
    SplitRange(turn, t_.pool, t_.change, t_.root, range, target, counts,
               [this](HwGfn frame, Level level) { kept_.emplace_back(frame, level); });
    return counts;
  }
  std::vector<EptEntry> Leaves(GfnRange range) {
    std::vector<EptEntry> leaves;
    const EpochGuard guard;
    ForEachLeaf(guard, t_.pool, t_.root, range,
                [&](Gfn, Level, EptEntry leaf) { leaves.push_back(leaf); });
    return leaves;
  }

  TablesFixture t_{600};
  const Table* table_ = nullptr;
  std::vector<std::pair<HwGfn, Level>> kept_;
};

TEST_F(SplitTest, B8_ChildrenHaveTheSameTranslationsRightsAndFlags) {
  const EptEntry large = EptEntry(MakeLeaf(kPfn, Level::k2M, {.withhold_write = true}).raw() |
                                  EptEntry::kDirty | EptEntry::kAccessed);
  Put(large, Level::k2M);
  EXPECT_EQ(Run(Frames(7, 1), Level::k4K).from_2m, 1u);
  const std::vector<EptEntry> leaves = Leaves(Frames(0, 512));
  ASSERT_EQ(leaves.size(), 512u);
  for (uint64_t i = 0; i < 512; ++i) {
    EXPECT_EQ(PfnOf(leaves[i].address()), kPfn + i);
    EXPECT_EQ(leaves[i].access(), large.access());
    EXPECT_TRUE(MayWrite(leaves[i]) && leaves[i].dirty() && leaves[i].accessed());
    EXPECT_FALSE(IsEptMisconfiguration(leaves[i], Level::k4K, {}, 52));
  }
  EXPECT_EQ(t_.leaves(Level::k4K), 512u);
  EXPECT_EQ(t_.leaves(Level::k2M), 0u);
  EXPECT_TRUE(t_.log.Take().empty()) << "the same memory: no flush";
}

TEST_F(SplitTest, F4_AGibibyteBecomes2MAndThen4KOnlyWhereItIsAsked) {
  Put(MakeLeaf(kPfn, Level::k1G, {}), Level::k1G);
  const SplitCounts first = Run(Frames(512, 3 * 512), Level::k2M);
  EXPECT_EQ(first.from_1g, 1u);
  EXPECT_EQ(first.from_2m, 0u);
  EXPECT_EQ(t_.leaves(Level::k2M), 512u);
  const SplitCounts second = Run(Frames(512, 3 * 512), Level::k4K);
  EXPECT_EQ(second.from_2m, 3u);
  EXPECT_EQ(t_.leaves(Level::k2M), 509u);
  EXPECT_EQ(t_.leaves(Level::k4K), 3 * 512u);
  for (const EptEntry leaf : Leaves(Frames(0, 512))) {
    EXPECT_TRUE(leaf.IsLeaf(Level::k2M)) << "outside of the range nothing is split";
  }
}

TEST_F(SplitTest, B9_WithoutATableTheLargePageStaysAndIsNamed) {
  Put(MakeLeaf(kPfn, Level::k2M, {}), Level::k2M);
  PreloadedTables all(t_.pool);
  const auto stats = t_.pool.stats();
  ASSERT_TRUE(t_.pool.Preload(stats.pages - stats.used, all).ok());
  const SplitCounts none = Run(Frames(0, 512), Level::k4K);
  EXPECT_EQ(none.kept, 1u);
  EXPECT_EQ(none.from_2m, 0u);
  EXPECT_EQ(kept_, (std::vector<std::pair<HwGfn, Level>>{{HwGfn(0), Level::k2M}}));
  EXPECT_EQ(Leaves(Frames(0, 512)).size(), 1u);
  t_.pool.Free(all.Take());
  EXPECT_EQ(Run(Frames(0, 512), Level::k4K).from_2m, 1u) << "with one more it goes on";
}

TEST_F(SplitTest, B10_4KGetBackTheFetchThatWasWithheldForSizeAndNoOther) {
  Put(MakeLeaf(kPfn, Level::k1G, {.withhold_fetch = true}), Level::k1G);
  ASSERT_FALSE(Leaves(Frames(0, 1)).front().access().fetch());
  Run(Frames(0, 512), Level::k4K);
  for (const EptEntry leaf : Leaves(Frames(0, 512))) EXPECT_EQ(leaf.access(), Access::All());
  for (const EptEntry leaf : Leaves(Frames(512, 512))) {
    EXPECT_FALSE(leaf.access().fetch()) << "2M is large still";
  }
}

TEST_F(SplitTest, B10_AFetchThatAttributesDenyDoesNotComeBack) {
  const Access no_fetch = Access::Read() | Access::Write();
  Put(MakeLeaf(kPfn, Level::k2M, {.allowed = no_fetch, .withhold_fetch = true}), Level::k2M);
  Run(Frames(0, 512), Level::k4K);
  for (const EptEntry leaf : Leaves(Frames(0, 512))) EXPECT_EQ(leaf.access(), no_fetch);
}

TEST_F(SplitTest, B5_WhatWasOnlyWithheldIsAllowedInEverySmallPage) {
  // The leaf grants read alone; what its pages allow is more, and less than everything.
  const Access allowed = Access::Read() | Access::Write();
  Put(MakeLeaf(kPfn, Level::k2M, {.allowed = allowed, .withhold_write = true}), Level::k2M);
  Run(Frames(0, 512), Level::k4K);
  for (const EptEntry leaf : Leaves(Frames(0, 512))) {
    EXPECT_EQ(leaf.access(), Access::Read());
    ASSERT_TRUE(MayWrite(leaf));
    EXPECT_EQ(WithWrite(leaf).access(), allowed);
  }
}

TEST_F(SplitTest, F6_ASavedLeafIsSplitIntoSavedLeaves) {
  Put(WithSavedAccess(WithoutWrite(MakeLeaf(kPfn, Level::k2M, {.withhold_fetch = true}))),
      Level::k2M);
  Run(Frames(0, 512), Level::k4K);
  for (const EptEntry leaf : Leaves(Frames(0, 512))) {
    EXPECT_TRUE(leaf.access().empty());
    EXPECT_EQ(WithRestoredAccess(leaf).access(), Access::Read() | Access::Fetch());
    EXPECT_TRUE(MayWrite(leaf)) << "W goes through its own check";
  }
}

TEST_F(SplitTest, AProcessorThatSetsAFlagMeanwhileIsNotForgotten) {
  const EptEntry clean = MakeLeaf(kPfn, Level::k2M, {});
  Put(clean, Level::k2M);
  RawWord(table_->slots[0]) |= EptEntry::kDirty;
  Table& child = t_.NewTable();
  const EpochGuard guard;
  EXPECT_EQ(SplitLeaf(guard, t_.change, t_.root, *table_, table_->slots[0], clean, child, Gfn(0)),
            ChangeResult::kRaced);
  EXPECT_TRUE(table_->slots[0].Load().dirty());
  for (uint64_t i = 0; i < kEntriesPerTable; ++i) {
    EXPECT_EQ(child.slots[i].Load(), kEmptyEntry) << "the child is as it was";
  }
}

}  // namespace
}  // namespace twinroot::mmu
