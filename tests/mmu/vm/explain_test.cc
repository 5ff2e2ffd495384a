// Why a page is mapped at its level.
#include <gtest/gtest.h>

#include "tests/fakes/test_space.h"

namespace twinroot::mmu {
namespace {

constexpr auto kPrivate = MemoryKind::kPrivate;
constexpr auto kShared = MemoryKind::kShared;
constexpr uint64_t kGiB = 1 << 18;  // frames

Explanation Why(const TestSpace& t, uint64_t gfn, MemoryKind kind = kPrivate) {
  return t.space->Translate(Gpa(gfn << kPageShift), kind)->why;
}

void ExpectWhy(const TestSpace& t, uint64_t gfn, Level allowed, LevelVeto veto) {
  const Explanation why = Why(t, gfn);
  EXPECT_TRUE(why.may_map);
  EXPECT_EQ(why.allowed, allowed);
  EXPECT_EQ(why.veto, veto) << static_cast<int>(why.veto);
}

TEST(ExplainTest, NothingForbidsTheLargest) {
  TestSpace t({.frames = kGiB});
  ExpectWhy(t, 5, Level::k1G, LevelVeto::kNone);
  EXPECT_EQ(Why(t, 5).mapped, std::nullopt);
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  EXPECT_EQ(Why(t, 5).mapped, Level::k1G);
  EXPECT_FALSE(Why(t, 5).smaller_table);
}

TEST(ExplainTest, TheProcessorHasNoLargerPages) {
  TestSpace t({.capabilities = {.page_1g = false}, .frames = kGiB});
  ExpectWhy(t, 5, Level::k2M, LevelVeto::kCapability);
}

TEST(ExplainTest, TheMemslotEnds) {
  TestSpace t({.frames = 1300});
  ExpectWhy(t, 600, Level::k2M, LevelVeto::kMemslot);
  ExpectWhy(t, 1200, Level::k4K, LevelVeto::kMemslot);
}

TEST(ExplainTest, TheHostFramesAreAlignedOtherwise) {
  TestSpace t({.add_slot = false});
  ASSERT_TRUE(t.space->AddMemslot({Frames(0, 2048), t.kPrivatePfn + 1, {}}).ok());
  ExpectWhy(t, 600, Level::k4K, LevelVeto::kAlignment);
}

TEST(ExplainTest, TheBackingHasNoLargerPage) {
  // Before and after a page is there, and whether it could be had without Resolve or not.
  for (const Level largest : {Level::k4K, Level::k2M}) {
    TestSpace t({.frames = kGiB, .max_level = largest});
    ExpectWhy(t, 600, largest, LevelVeto::kBacking);
    ASSERT_TRUE(t.Fixes(600, kPrivate));
    ExpectWhy(t, 600, largest, LevelVeto::kBacking);
    EXPECT_EQ(Why(t, 600).mapped, largest);
    t.pages.ready = true;
    ExpectWhy(t, 600, largest, LevelVeto::kBacking);
  }
}

TEST(ExplainTest, TheExternalTableTakesNoLargerLeaf) {
  TestSpace t({.external = true});
  t.external_private.max_level = Level::k4K;
  ExpectWhy(t, 600, Level::k4K, LevelVeto::kExternal);
}

TEST(ExplainTest, TheDirtyLogCountsSmallPages) {
  TestSpace t;
  EXPECT_FALSE(Why(t, 600).dirty_log);
  ASSERT_TRUE(t.space->EnableDirtyLog({}).ok());
  ExpectWhy(t, 600, Level::k4K, LevelVeto::kDirtyLog);
  EXPECT_TRUE(Why(t, 600).dirty_log);
}

TEST(ExplainTest, F8_APageThatIsExecutedIsSmall) {
  TestSpace t({.nx_huge_pages = true});
  ASSERT_TRUE(t.Fixes(600, kPrivate));
  ExpectWhy(t, 600, Level::k2M, LevelVeto::kMemslot);
  t.Touch(600, kPrivate, Access::Fetch());
  ASSERT_EQ(Why(t, 600).mapped, Level::k4K);
  ExpectWhy(t, 600, Level::k4K, LevelVeto::kNxMitigation);
}

TEST(ExplainTest, D3_AttributesDiffer) {
  TestSpace t;
  ASSERT_TRUE(t.Convert({Frames(600, 1)}, kShared).ok());
  ExpectWhy(t, 601, Level::k4K, LevelVeto::kAttributes);
  EXPECT_FALSE(Why(t, 600).may_map);  // through the private alias
  EXPECT_TRUE(Why(t, 600, kShared).may_map);
  EXPECT_EQ(Why(t, 600).attributes.kind, kShared);
  ASSERT_TRUE(
      t.space->SetMemoryAttributes({.ranges = {Frames(5, 1)}, .deny = Access::Write()}).ok());
  ExpectWhy(t, 6, Level::k4K, LevelVeto::kAttributes);
  EXPECT_EQ(Why(t, 5).attributes.denied, Access::Write());
}

TEST(ExplainTest, ASmallerTableStandsWhereALargePageIsAllowed) {
  TestSpace t;
  ASSERT_TRUE(t.Fixes(600, kPrivate));
  EXPECT_FALSE(Why(t, 600).smaller_table);
  ASSERT_TRUE(t.space->SplitPages(Frames(600, 1), Level::k4K).ok());
  ExpectWhy(t, 600, Level::k2M, LevelVeto::kMemslot);
  EXPECT_EQ(Why(t, 600).mapped, Level::k4K);
  EXPECT_TRUE(Why(t, 600).smaller_table);
  ASSERT_TRUE(t.space->RecoverPages(Frames(512, 512)).ok());
  EXPECT_FALSE(Why(t, 600).smaller_table);
}

TEST(ExplainTest, OutsideOfMemoryAndWithoutABackingNothingMayBeMapped) {
  TestSpace t({.shared_backing = false});
  EXPECT_FALSE(Why(t, 5000).in_memslot);
  EXPECT_FALSE(Why(t, 5000).may_map);
  EXPECT_EQ(Why(t, 5000).attributes.kind, kShared);
  EXPECT_TRUE(Why(t, 5).in_memslot);
  EXPECT_FALSE(Why(t, 5, kShared).may_map);
}

}  // namespace
}  // namespace twinroot::mmu
