// The walk "SetMemoryAttributes".
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/fakes/test_space.h"

namespace twinroot::mmu {
namespace {

constexpr auto kPrivate = MemoryKind::kPrivate;
constexpr auto kShared = MemoryKind::kShared;
using Calls = std::vector<std::string>;

TEST(AttributeChangeTest, D4_NothingToChangeDoesNothing) {
  TestSpace t;
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  const uint64_t before = t.space->stats().invalidations;
  const auto result = t.Convert({Frames(0, 2048)}, kPrivate);
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->converted.empty());
  EXPECT_EQ(t.log.Take(), Calls{});
  EXPECT_EQ(t.space->stats().invalidations, before);
  EXPECT_TRUE(t.IsMapped(5, kPrivate));
}

TEST(AttributeChangeTest, D4_OnlyWhatReallyChangesIsReportedAsMaximalRuns) {
  TestSpace t;
  ASSERT_TRUE(t.Convert({Frames(100, 10)}, kShared).ok());
  const auto result = t.Convert({Frames(110, 5), Frames(90, 20)}, kShared);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->converted, (std::vector<GfnRange>{Frames(90, 10), Frames(110, 5)}));
  const auto joined = t.Convert({Frames(20, 5), Frames(10, 10)}, kShared);
  ASSERT_TRUE(joined.ok());
  EXPECT_EQ(joined->converted, (std::vector<GfnRange>{Frames(10, 15)}));
}

TEST(AttributeChangeTest, D4_OrderIsReserveZapFlushCopyDiscardCommit) {
  TestSpace t;
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  bool committed = false;
  bool mapped_during = false;
  int calls = 0;
  t.pages.on_content = [&](GfnRange) {
    ++calls;
    const auto walk = t.space->Translate(Gpa(5 << kPageShift), kPrivate);
    committed = committed || walk->attribute == kShared;
    mapped_during = mapped_during || walk->mapped;
  };
  ASSERT_TRUE(t.Convert({Frames(5, 2)}, kShared, Content::kPreserve, Requester::kGuest).ok());
  EXPECT_EQ(t.log.Take(), (Calls{"reserve shared 0x5+2", "flush private 0x5+2",
                                 "copy private 0x5+2", "discard private 0x5+2"}));
  EXPECT_EQ(calls, 2);
  EXPECT_FALSE(mapped_during);
  EXPECT_FALSE(committed);
  EXPECT_EQ(t.space->GetMemoryAttributes().size(), 3u);
}

TEST(AttributeChangeTest, D4_FaultsInTheRangeRetryMeanwhileOthersDoNot) {
  TestSpace t;
  int calls = 0;
  t.pages.on_content = [&](GfnRange) {
    ++calls;
    for (const MemoryKind kind : kAllKinds) {
      EXPECT_TRUE(std::holds_alternative<Retry>(t.Touch(600, kind)));
    }
    // Beside it a page gets mapped, but never by a leaf over what is being changed.
    EXPECT_TRUE(t.Fixes(512, kPrivate));
    EXPECT_TRUE(t.Fixes(1023, kPrivate));
    EXPECT_EQ(t.LevelOf(512, kPrivate), Level::k4K);
    EXPECT_TRUE(t.Fixes(5, kPrivate));
    EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k2M);
  };
  ASSERT_TRUE(t.Convert({Frames(600, 1)}, kShared).ok());
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(t.Fixes(600, kShared));
  EXPECT_TRUE(t.Fixes(601, kPrivate));
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(AttributeChangeTest, D4_OnlyTheKindThatNoLongerHoldsIsZapped) {
  TestSpace t;
  ASSERT_TRUE(t.Convert({Frames(512, 512)}, kShared).ok());
  ASSERT_TRUE(t.Fixes(512, kShared));
  ASSERT_TRUE(t.Fixes(0, kPrivate));
  t.log.Take();
  ASSERT_TRUE(t.Convert({Frames(0, 512)}, kShared).ok());
  EXPECT_TRUE(t.IsMapped(512, kShared));
  EXPECT_FALSE(t.IsMapped(0, kPrivate));
  for (const std::string& call : t.log.Take()) {
    EXPECT_EQ(call.find("shared"), std::string::npos) << call;
  }
}

TEST(AttributeChangeTest, ASlotWithoutBackingOfTheNewKindIsRefused) {
  TestSpace t({.shared_backing = false});
  EXPECT_TRUE(absl::IsFailedPrecondition(t.Convert({Frames(5, 1)}, kShared).status()));
  EXPECT_TRUE(t.Fixes(5, kPrivate));
}

TEST(AttributeChangeTest, WithoutASharedBitNothingCanBeShared) {
  TestSpace t({.shared_bit = std::nullopt});
  EXPECT_TRUE(absl::IsInvalidArgument(t.Convert({Frames(5, 1)}, kShared).status()));
}

TEST(AttributeChangeTest, EmptyTablesGoBackToThePool) {
  TestSpace t({.max_level = Level::k4K});
  const uint64_t roots = t.space->stats().table_pages;
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  ASSERT_TRUE(t.Fixes(600, kPrivate));
  EXPECT_EQ(t.space->stats().table_pages, roots + 4);
  // All of a table's range: it goes at once. A page of it: when somebody looks.
  ASSERT_TRUE(t.Convert({Frames(512, 512)}, kShared).ok());
  EXPECT_EQ(t.space->stats().table_pages, roots + 3);
  ASSERT_TRUE(t.Convert({Frames(5, 1)}, kShared).ok());
  EXPECT_EQ(t.space->stats().table_pages, roots + 3);
  EXPECT_EQ(t.space->ReclaimTables(100), 3u);
  EXPECT_EQ(t.space->ReclaimTables(100), 0u);
  EXPECT_EQ(t.space->stats().table_pages, roots);
  EXPECT_EQ(t.pool.stats().used, roots);
  t.space.reset();
  EXPECT_EQ(t.pool.stats().used, 0u);
}

TEST(AttributeChangeTest, PartOfALargePageIsSplitAlongItsEndsAndTheRestStaysMapped) {
  TestSpace t;
  ASSERT_TRUE(t.Fixes(600, kPrivate));
  ASSERT_EQ(t.LevelOf(600, kPrivate), Level::k2M);
  ASSERT_TRUE(t.Convert({Frames(600, 3)}, kShared).ok());
  for (uint64_t gfn = 512; gfn < 1024; ++gfn) {
    ASSERT_EQ(t.IsMapped(gfn, kPrivate), gfn < 600 || gfn >= 603) << gfn;
  }
  EXPECT_EQ(t.space->stats().splits_conversion, 1u);
  EXPECT_EQ(t.space->stats().splits_kept, 0u);
  EXPECT_EQ(t.space->stats().leaves[0][0], 509u);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(AttributeChangeTest, A1GLeafIsSplitAlongTheEndsOnly) {
  TestSpace t({.frames = 1 << 18});
  ASSERT_TRUE(t.Fixes(0, kPrivate));
  ASSERT_EQ(t.LevelOf(0, kPrivate), Level::k1G);
  // From the middle of one 2M to the border of another.
  ASSERT_TRUE(t.Convert({Frames(700, 4 * 512 - 700)}, kShared).ok());
  const AddressSpaceStats stats = t.space->stats();
  EXPECT_EQ(stats.splits_conversion, 2u);  // 1G, and the 2M of the head
  EXPECT_EQ(stats.leaves[0][2], 0u);
  EXPECT_EQ(stats.leaves[0][1], 1u + 508u);
  EXPECT_EQ(stats.leaves[0][0], 700u - 512u);
  EXPECT_TRUE(t.IsMapped(699, kPrivate));
  EXPECT_FALSE(t.IsMapped(700, kPrivate));
  EXPECT_EQ(t.LevelOf(4 * 512, kPrivate), Level::k2M);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(AttributeChangeTest, B9_WithoutATableForTheSplitTheWholeLeafGoesAndIsCounted) {
  TestSpace t({.pool_pages = 4});  // two roots, and the way to one large leaf
  ASSERT_TRUE(t.Fixes(600, kPrivate));
  ASSERT_EQ(t.pool.stats().used, 4u);
  ASSERT_TRUE(t.Convert({Frames(600, 3)}, kShared).ok());
  EXPECT_FALSE(t.IsMapped(512, kPrivate));
  EXPECT_EQ(t.space->stats().splits_conversion, 0u);
  EXPECT_EQ(t.space->stats().splits_kept, 1u);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(AttributeChangeTest, F5_ALargePageComesBackInPlaceWhenItsRangeIsUniformAgain) {
  TestSpace t;
  ASSERT_TRUE(t.Fixes(512, kPrivate));
  ASSERT_TRUE(t.Convert({Frames(600, 64)}, kShared).ok());
  ASSERT_EQ(t.LevelOf(512, kPrivate), Level::k4K);
  const uint64_t fixed = t.space->stats().faults_fixed;
  ASSERT_TRUE(t.Convert({Frames(600, 64)}, kPrivate).ok());
  EXPECT_TRUE(t.IsMapped(600, kPrivate));  // nobody has touched it
  EXPECT_EQ(t.LevelOf(600, kPrivate), Level::k2M);
  EXPECT_EQ(t.space->stats().collapses_attributes, 1u);
  EXPECT_EQ(t.space->stats().faults_fixed, fixed);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(AttributeChangeTest, F5_FewPagesThatGoToAndFroAreLeftSmall) {
  TestSpace t;
  ASSERT_TRUE(t.Fixes(512, kPrivate));
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(t.Convert({Frames(600, 1)}, kShared).ok());
    ASSERT_TRUE(t.Convert({Frames(600, 1)}, kPrivate).ok());
  }
  EXPECT_EQ(t.space->stats().splits_conversion, 1u);
  EXPECT_EQ(t.space->stats().collapses_attributes, 0u);
  // Several pieces in one call count together.
  std::vector<GfnRange> pieces;
  for (uint64_t i = 0; i < 64; ++i) pieces.push_back(Frames(512 + 2 * i, 1));
  ASSERT_TRUE(t.Convert(pieces, kShared).ok());
  ASSERT_TRUE(t.Convert(pieces, kPrivate).ok());
  EXPECT_EQ(t.LevelOf(512, kPrivate), Level::k2M);
}

TEST(AttributeChangeTest, F5_WithTheDirtyLogOnNothingIsMadeLarge) {
  TestSpace t;
  ASSERT_TRUE(t.Fixes(512, kPrivate));
  ASSERT_TRUE(t.space->EnableDirtyLog({}).ok());
  ASSERT_TRUE(t.Convert({Frames(600, 64)}, kShared).ok());
  ASSERT_TRUE(t.Convert({Frames(600, 64)}, kPrivate).ok());
  EXPECT_EQ(t.space->stats().collapses_attributes, 0u);
  EXPECT_EQ(t.LevelOf(512, kPrivate), Level::k4K);
}

TEST(AttributeChangeTest, F3_ConvertedPagesCountAsDirty) {
  TestSpace t;
  ASSERT_TRUE(t.space->EnableDirtyLog({}).ok());
  ASSERT_TRUE(t.Convert({Frames(70, 3)}, kShared).ok());
  const auto dirty = t.space->HarvestDirty(Frames(0, 256));
  ASSERT_TRUE(dirty.ok()) << dirty.status();
  EXPECT_EQ(dirty->words, (std::vector<uint64_t>{0, uint64_t{7} << 6, 0, 0}));
}

TEST(AttributeChangeTest, E1_AnExternalTableThatCanSplitKeepsTheRest) {
  TestSpace t({.external = true});
  t.external_private.can_split = true;
  ASSERT_TRUE(t.Fixes(600, kPrivate));
  ASSERT_EQ(t.external_private.frames(), 512u);
  ASSERT_TRUE(t.Convert({Frames(600, 3)}, kShared).ok());
  EXPECT_EQ(t.external_private.frames(), 509u);
  EXPECT_FALSE(t.external_private.Holds(Gfn(601)));
  EXPECT_EQ(t.space->stats().splits_conversion, 1u);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

}  // namespace
}  // namespace twinroot::mmu
