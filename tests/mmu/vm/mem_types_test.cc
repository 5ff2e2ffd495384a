// F12: the guest's memory types decide the entry's, and no large page stands over two of them.
#include <gtest/gtest.h>

#include <memory>

#include "mmu/hw/ept_entry.h"
#include "mmu/vm/mem_type_map.h"
#include "tests/fakes/test_space.h"

namespace twinroot::mmu {
namespace {

constexpr Gfn kLimit{uint64_t{1} << 34};

MemTypeRange Range(uint64_t first, uint64_t count, MemType type) {
  return {Frames(first, count), type};
}

TestSpace SpaceWith(CachePolicy cache) {
  TestSpaceOptions options;
  options.cache = cache;
  return TestSpace(options);
}

EptEntry LeafAt(const TestSpace& t, uint64_t gfn) {
  return EptEntry(
      t.space->Translate(Gpa(gfn << kPageShift), MemoryKind::kPrivate)->steps.back().entry);
}
uint64_t TypeAt(const TestSpace& t, uint64_t gfn) { return LeafAt(t, gfn).mem_type(); }

TEST(MemTypeMapTest, FindsTheTypeOfAFrameAndOfARange) {
  Mutex mutex;
  const Turn turn(mutex);
  MemTypeMap map;
  EXPECT_EQ(map.Of(turn, Gfn(5)), MemType::kWriteBack);
  EXPECT_TRUE(map.Same(turn, Frames(0, 1 << 20)));
  const MemTypes types{MemType::kUncacheable,
                       {Range(10, 10, MemType::kWriteBack), Range(20, 5, MemType::kWriteBack),
                        Range(30, 2, MemType::kUncacheable)}};
  map.Swap(turn, std::make_unique<const MemTypes>(types));
  EXPECT_EQ(map.Of(turn, Gfn(9)), MemType::kUncacheable);
  EXPECT_EQ(map.Of(turn, Gfn(10)), MemType::kWriteBack);
  EXPECT_EQ(map.Of(turn, Gfn(24)), MemType::kWriteBack);
  EXPECT_EQ(map.Of(turn, Gfn(25)), MemType::kUncacheable);
  EXPECT_TRUE(map.Same(turn, Frames(10, 15)));   // two ranges of one type
  EXPECT_FALSE(map.Same(turn, Frames(10, 16)));  // and one frame behind them
  EXPECT_FALSE(map.Same(turn, Frames(9, 2)));
  EXPECT_TRUE(map.Same(turn, Frames(25, 100)));  // a range that says what the default says
  EXPECT_FALSE(map.Same(turn, Frames(0, 12)));
}

TEST(MemTypeMapTest, RefusesListsThatSayAFrameTwiceOrNothing) {
  EXPECT_TRUE(
      MemTypeMap::Check({MemType::kWriteBack, {Range(1, 2, MemType::kUncacheable)}}, kLimit).ok());
  for (const std::vector<MemTypeRange>& bad : std::vector<std::vector<MemTypeRange>>{
           {Range(1, 0, MemType::kUncacheable)},
           {Range(1, 2, MemType::kUncacheable), Range(2, 1, MemType::kWriteBack)},
           {Range(9, 1, MemType::kUncacheable), Range(2, 1, MemType::kWriteBack)},
           {Range(kLimit.value - 1, 2, MemType::kUncacheable)},
           {Range(3, ~uint64_t{0}, MemType::kUncacheable)}}) {
    EXPECT_TRUE(absl::IsInvalidArgument(MemTypeMap::Check({MemType::kWriteBack, bad}, kLimit)));
  }
}

TEST(MemTypesTest, F12_GuestMtrrsDecideTheTypeOfTheEntry) {
  TestSpace t = SpaceWith(CachePolicy::kGuestMtrr);
  ASSERT_TRUE(
      t.space->SetMemoryTypes({MemType::kWriteBack, {Range(600, 8, MemType::kUncacheable)}}).ok());
  ASSERT_TRUE(t.Fixes(600, MemoryKind::kPrivate));
  ASSERT_TRUE(t.Fixes(608, MemoryKind::kPrivate));
  EXPECT_EQ(TypeAt(t, 600), static_cast<uint64_t>(MemType::kUncacheable));
  EXPECT_EQ(TypeAt(t, 608), static_cast<uint64_t>(MemType::kWriteBack));
  EXPECT_FALSE(LeafAt(t, 600).ignore_pat());
}

TEST(MemTypesTest, F12_ARangeOfMixedTypesTakesNoLargePage) {
  TestSpace t = SpaceWith(CachePolicy::kGuestMtrr);
  ASSERT_TRUE(
      t.space->SetMemoryTypes({MemType::kWriteBack, {Range(600, 8, MemType::kUncacheable)}}).ok());
  ASSERT_TRUE(t.Fixes(513, MemoryKind::kPrivate));
  EXPECT_EQ(t.LevelOf(513, MemoryKind::kPrivate), Level::k4K);
  ASSERT_TRUE(t.Fixes(1030, MemoryKind::kPrivate));
  EXPECT_EQ(t.LevelOf(1030, MemoryKind::kPrivate), Level::k2M);
}

TEST(MemTypesTest, F12_WhatHasAnotherTypeNowIsMappedAnewAndTheRestStays) {
  TestSpace t = SpaceWith(CachePolicy::kGuestMtrr);
  ASSERT_TRUE(t.Fixes(513, MemoryKind::kPrivate));
  ASSERT_TRUE(t.Fixes(1030, MemoryKind::kPrivate));
  t.log.Take();
  ASSERT_TRUE(
      t.space->SetMemoryTypes({MemType::kWriteBack, {Range(600, 8, MemType::kUncacheable)}}).ok());
  EXPECT_FALSE(t.IsMapped(513, MemoryKind::kPrivate));
  EXPECT_TRUE(t.IsMapped(1030, MemoryKind::kPrivate));
  EXPECT_EQ(t.log.Take().size(), 1u);  // one flush
  // The same again changes nothing.
  ASSERT_TRUE(
      t.space->SetMemoryTypes({MemType::kWriteBack, {Range(600, 8, MemType::kUncacheable)}}).ok());
  EXPECT_EQ(t.log.Take().size(), 0u);
  // Another default reaches everything.
  ASSERT_TRUE(t.space->SetMemoryTypes({MemType::kUncacheable, {}}).ok());
  EXPECT_FALSE(t.IsMapped(1030, MemoryKind::kPrivate));
  ASSERT_TRUE(t.Fixes(1030, MemoryKind::kPrivate));
  EXPECT_EQ(TypeAt(t, 1030), static_cast<uint64_t>(MemType::kUncacheable));
  EXPECT_TRUE(t.space->Audit().ok());
}

TEST(MemTypesTest, F12_TheHostsPolicyIgnoresTheGuestsPatAndRefusesItsMtrrs) {
  TestSpace t = SpaceWith(CachePolicy::kWriteBack);
  ASSERT_TRUE(t.Fixes(513, MemoryKind::kPrivate));
  EXPECT_TRUE(LeafAt(t, 513).ignore_pat());
  EXPECT_EQ(TypeAt(t, 513), static_cast<uint64_t>(MemType::kWriteBack));
  EXPECT_TRUE(absl::IsFailedPrecondition(t.space->SetMemoryTypes({MemType::kUncacheable, {}})));
}

}  // namespace
}  // namespace twinroot::mmu
