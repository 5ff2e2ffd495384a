// Splitting on request and making pages large again, through the facade.
#include <gtest/gtest.h>

#include "tests/fakes/test_space.h"

namespace twinroot::mmu {
namespace {

constexpr auto kPrivate = MemoryKind::kPrivate;
constexpr auto kShared = MemoryKind::kShared;
constexpr uint64_t kGib = uint64_t{1} << 18;

TEST(PageSizesTest, F4_SplitsAGibibyteTo2MAndThenTo4K) {
  TestSpace t({.frames = kGib, .pool_pages = 600});
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  ASSERT_EQ(t.LevelOf(5, kPrivate), Level::k1G);
  t.log.Take();
  auto split = t.space->SplitPages(Frames(0, 1024), Level::k2M);
  ASSERT_TRUE(split.ok()) << split.status();
  EXPECT_EQ(split->split_1g, 1u);
  EXPECT_EQ(split->split_2m, 0u);
  split = t.space->SplitPages(Frames(0, 1024), Level::k4K);
  EXPECT_EQ(split->split_2m, 2u);
  EXPECT_EQ(t.LevelOf(1023, kPrivate), Level::k4K);
  EXPECT_EQ(t.LevelOf(1024, kPrivate), Level::k2M);
  EXPECT_EQ(t.space->stats().splits_request, 3u);
  EXPECT_TRUE(t.log.Take().empty()) << "translations stay: no flush";
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(PageSizesTest, F5_RecoversInPlaceWhatNothingForbids) {
  TestSpace t({.frames = kGib, .pool_pages = 600});
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  ASSERT_TRUE(t.space->SplitPages(Frames(0, 1024), Level::k4K).ok());
  t.log.Take();
  const auto recovered = t.space->RecoverPages(Frames(0, kGib));
  ASSERT_TRUE(recovered.ok());
  EXPECT_EQ(recovered->collapsed, 1u);
  EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k1G);
  EXPECT_EQ(t.log.Take(), (std::vector<std::string>{"flush private 0x0+262144"}));
  EXPECT_EQ(t.space->stats().collapses_attributes, 1u);
  EXPECT_EQ(t.space->stats().leaves[0][0], 0u);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(PageSizesTest, F5_NotOverMixedAttributesAndNotUnderTheLog) {
  TestSpace t;
  ASSERT_TRUE(t.Convert({Frames(5, 1)}, kShared).ok());
  for (uint64_t gfn : {6, 600}) ASSERT_TRUE(t.Fixes(gfn, kPrivate));
  ASSERT_TRUE(t.Fixes(5, kShared));
  ASSERT_TRUE(t.space->SplitPages(Frames(512, 512), Level::k4K).ok());
  const auto recovered = t.space->RecoverPages(Frames(0, 2048));
  EXPECT_EQ(recovered->collapsed, 1u);
  EXPECT_EQ(t.LevelOf(6, kPrivate), Level::k4K);
  EXPECT_EQ(t.LevelOf(600, kPrivate), Level::k2M);
  ASSERT_TRUE(t.space->EnableDirtyLog({}).ok());
  EXPECT_EQ(t.space->RecoverPages(Frames(0, 2048))->collapsed, 0u);
  ASSERT_TRUE(t.space->DisableDirtyLog().ok());
  ASSERT_TRUE(t.Convert({Frames(5, 1)}, kPrivate).ok());
  EXPECT_EQ(t.space->RecoverPages(Frames(0, 2048))->collapsed, 1u) << "uniform again";
  EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k2M);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(PageSizesTest, F5_NotLargerThanTheBackingAllows) {
  TestSpace t;
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  ASSERT_TRUE(t.space->SplitPages(Frames(0, 512), Level::k4K).ok());
  t.pages.max_level = Level::k4K;
  EXPECT_EQ(t.space->RecoverPages(Frames(0, 512))->collapsed, 0u);
  EXPECT_TRUE(t.IsMapped(5, kPrivate));
}

TEST(PageSizesTest, B9_SplitsAsFarAsTheBudgetGoesAndSaysSo) {
  TestSpace t({.shared_bit = {}, .pool_pages = 5});
  for (uint64_t gfn : {0, 512, 1024}) ASSERT_TRUE(t.Fixes(gfn, kPrivate));
  const auto split = t.space->SplitPages(Frames(0, 2048), Level::k4K);
  ASSERT_TRUE(split.ok());
  EXPECT_EQ(split->split_2m, 2u);
  EXPECT_EQ(split->kept, 1u);
  EXPECT_EQ(t.space->stats().splits_kept, 1u);
  for (uint64_t gfn : {0, 512, 1024}) EXPECT_TRUE(t.IsMapped(gfn, kPrivate));
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(PageSizesTest, A7_AliasesAndWhatIsOutsideAreRefused) {
  TestSpace t;
  const GfnRange alias{Gfn(uint64_t{1} << (46 - 12)), 1};
  EXPECT_TRUE(absl::IsInvalidArgument(t.space->SplitPages(alias, Level::k4K).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(t.space->RecoverPages(alias).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(t.space->RecoverPages(Frames(0, 4096)).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(t.space->TestAndClearAccessed(alias).status()));
}

}  // namespace
}  // namespace twinroot::mmu
