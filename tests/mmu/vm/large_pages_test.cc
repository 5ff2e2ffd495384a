// Leaves of 1 GiB, end to end, and what forbids them (D3).
#include <gtest/gtest.h>

#include "mmu/hw/ept_entry.h"
#include "tests/fakes/test_space.h"

namespace twinroot::mmu {
namespace {

constexpr auto kPrivate = MemoryKind::kPrivate;
constexpr auto kShared = MemoryKind::kShared;
constexpr uint64_t kGib = uint64_t{1} << 18;

TestSpaceOptions ThreeGib() {
  TestSpaceOptions options;
  options.frames = 3 * kGib - 5;  // the last GiB is not whole
  return options;
}

TEST(LargePagesTest, D3_AUniformGibibyteIsOneLeaf) {
  TestSpace t(ThreeGib());
  ASSERT_TRUE(t.create_status.ok()) << t.create_status;
  ASSERT_TRUE(t.Fixes(kGib + 777, kPrivate));
  const Translation walk = *t.space->Translate(Gpa((kGib + 777) << kPageShift), kPrivate);
  ASSERT_EQ(walk.steps.size(), 2u);
  EXPECT_EQ(walk.level, Level::k1G);
  EXPECT_EQ(walk.hpa, HpaOf(TestSpace::kPrivatePfn + kGib + 777));
  EXPECT_EQ(t.space->stats().leaves[0][2], 1u);
  EXPECT_TRUE(std::holds_alternative<Spurious>(t.Touch(2 * kGib - 1, kPrivate)));
  ASSERT_TRUE(t.Fixes(2 * kGib, kPrivate));
  EXPECT_EQ(t.LevelOf(2 * kGib, kPrivate), Level::k2M) << "the slot ends inside";
  ASSERT_TRUE(t.Fixes(3 * kGib - 6, kPrivate));
  EXPECT_EQ(t.LevelOf(3 * kGib - 6, kPrivate), Level::k4K);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(LargePagesTest, D3_ASharedPageAnywhereInTheGibibyteLimitsItsLeaf) {
  TestSpace t(ThreeGib());
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  ASSERT_EQ(t.LevelOf(5, kPrivate), Level::k1G);
  ASSERT_TRUE(t.Convert({Frames(700, 1)}, kShared).ok());
  // Split around the page, and everything beside it stays mapped.
  EXPECT_FALSE(t.IsMapped(700, kPrivate));
  ASSERT_TRUE(t.IsMapped(5, kPrivate));
  EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k2M);
  ASSERT_TRUE(t.IsMapped(600, kPrivate));
  EXPECT_EQ(t.LevelOf(600, kPrivate), Level::k4K);
  // The same when nothing was there to be split.
  ASSERT_TRUE(t.space->Zap(Frames(0, 1024)).ok());
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k2M);
  ASSERT_TRUE(t.Fixes(600, kPrivate));
  EXPECT_EQ(t.LevelOf(600, kPrivate), Level::k4K);
  ASSERT_TRUE(t.Fixes(kGib, kPrivate));
  EXPECT_EQ(t.LevelOf(kGib, kPrivate), Level::k1G);
  ASSERT_TRUE(t.Convert({Frames(700, 1)}, kPrivate).ok());
  ASSERT_TRUE(t.space->Zap(Frames(0, kGib)).ok());
  ASSERT_TRUE(t.Fixes(700, kPrivate));
  EXPECT_EQ(t.LevelOf(700, kPrivate), Level::k1G);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(LargePagesTest, D3_CapabilityBackingAndExternalTableLimitTheLeaf) {
  {
    TestSpaceOptions options = ThreeGib();
    options.capabilities.page_1g = false;
    TestSpace t(options);
    ASSERT_TRUE(t.Fixes(5, kPrivate));
    EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k2M);
  }
  {
    TestSpaceOptions options = ThreeGib();
    options.max_level = Level::k2M;
    TestSpace t(options);
    ASSERT_TRUE(t.Fixes(5, kPrivate));
    EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k2M);
  }
  {
    TestSpaceOptions options = ThreeGib();
    options.external = true;
    TestSpace t(options);
    t.external_private.max_level = Level::k2M;
    ASSERT_TRUE(t.Fixes(5, kPrivate));
    EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k2M);
  }
}

TEST(LargePagesTest, D3_AMemslotThatIsNotAlignedLikeItsFramesGetsSmallPages) {
  TestSpaceOptions options;
  options.add_slot = false;
  TestSpace t(options);
  ASSERT_TRUE(t.space
                  ->AddMemslot({.range = Frames(0, 2048),
                                .private_pfn = TestSpace::kPrivatePfn + 1,
                                .shared_pfn = TestSpace::kSharedPfn})
                  .ok());
  t.pages.ready = true;  // else the page source would name another frame
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k4K);
  ASSERT_TRUE(t.Convert({Frames(512, 512)}, kShared).ok());
  ASSERT_TRUE(t.Fixes(512, kShared));
  EXPECT_EQ(t.LevelOf(512, kShared), Level::k2M);
}

TEST(LargePagesTest, D6_APreservedGibibyteCopiesWhatWasTouched) {
  TestSpace t(ThreeGib());
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  for (const uint64_t gfn : {uint64_t{0}, kGib / 2, kGib - 1}) {
    t.pages.Mark(Gfn(gfn), kPrivate) = gfn + 1;
  }
  ASSERT_TRUE(t.Convert({Frames(0, kGib)}, kShared, Content::kPreserve, Requester::kGuest).ok());
  ASSERT_TRUE(t.Fixes(5, kShared));
  EXPECT_EQ(t.LevelOf(5, kShared), Level::k1G);
  for (const uint64_t gfn : {uint64_t{0}, kGib / 2, kGib - 1}) {
    EXPECT_EQ(t.pages.Mark(Gfn(gfn), kShared), gfn + 1);
    EXPECT_EQ(t.pages.Mark(Gfn(gfn), kPrivate), 0u);
  }
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

}  // namespace
}  // namespace twinroot::mmu
