// Conversion in place: what becomes of the bytes.
#include <gtest/gtest.h>

#include <string>
#include <tuple>
#include <vector>

#include "tests/fakes/test_space.h"

namespace twinroot::mmu {
namespace {

constexpr auto kPrivate = MemoryKind::kPrivate;
constexpr auto kShared = MemoryKind::kShared;
using Calls = std::vector<std::string>;

// The shapes that D6 names; `first` and `count` of what is converted.
class ShapeTest : public testing::TestWithParam<std::tuple<uint64_t, uint64_t, Level>> {
 protected:
  ShapeTest() : t_({.pool_pages = 64, .max_level = std::get<2>(GetParam())}) {
    for (uint64_t gfn = 0; gfn < 2048; ++gfn) {
      t_.Touch(gfn, kPrivate);
      t_.pages.Mark(Gfn(gfn), kPrivate) = gfn + 1;
    }
    range_ = Frames(std::get<0>(GetParam()), std::get<1>(GetParam()));
  }
  // Neighbours keep their bytes, refault, and are never unmapped for good.
  void ExpectNeighboursKeepTheirContent() {
    for (uint64_t gfn = 0; gfn < 2048; ++gfn) {
      if (range_.Contains(Gfn(gfn))) continue;
      ASSERT_EQ(t_.pages.Mark(Gfn(gfn), kPrivate), gfn + 1) << gfn;
      const FaultOutcome outcome = t_.Touch(gfn, kPrivate);
      ASSERT_TRUE(std::holds_alternative<Fixed>(outcome) ||
                  std::holds_alternative<Spurious>(outcome));
    }
    ASSERT_TRUE(t_.space->Audit().ok()) << t_.space->Audit();
  }

  TestSpace t_;
  GfnRange range_;
};

TEST_P(ShapeTest, D6_ConversionDestroysContentAndNeighboursKeepTheirs) {
  ASSERT_TRUE(t_.Convert({range_}, kShared).ok());
  ExpectNeighboursKeepTheirContent();
  ASSERT_TRUE(t_.Convert({range_}, kPrivate).ok());
  for (uint64_t i = 0; i < range_.count; ++i) {
    ASSERT_EQ(t_.pages.Mark(range_.first + i, kPrivate), 0u);
    ASSERT_EQ(t_.pages.Mark(range_.first + i, kShared), 0u);
  }
}

TEST_P(ShapeTest, D6_PreserveKeepsTheBytesBothWays) {
  ASSERT_TRUE(t_.Convert({range_}, kShared, Content::kPreserve, Requester::kGuest).ok());
  ExpectNeighboursKeepTheirContent();
  for (uint64_t i = 0; i < range_.count; ++i) {
    const Gfn gfn = range_.first + i;
    ASSERT_EQ(t_.pages.Mark(gfn, kShared), gfn.value + 1);
    ASSERT_EQ(t_.pages.Mark(gfn, kPrivate), 0u) << "the old backing was not freed";
  }
  ASSERT_TRUE(t_.Convert({range_}, kPrivate, Content::kPreserve, Requester::kHost).ok());
  for (uint64_t i = 0; i < range_.count; ++i) {
    const Gfn gfn = range_.first + i;
    ASSERT_EQ(t_.pages.Mark(gfn, kPrivate), gfn.value + 1);
    ASSERT_EQ(t_.pages.Mark(gfn, kShared), 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(FourKTwoMAndStraddling, ShapeTest,
                         testing::Combine(testing::Values(512, 513, 768), testing::Values(1, 512),
                                          testing::Values(Level::k4K, Level::k2M)));

TEST(InPlaceConversionTest, D6_TheHostMayNotPreserveToShared) {
  TestSpace t;
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  t.pages.Mark(Gfn(5), kPrivate) = 42;
  t.log.Take();
  const auto result = t.Convert({Frames(5, 1)}, kShared, Content::kPreserve, Requester::kHost);
  EXPECT_TRUE(absl::IsPermissionDenied(result.status()));
  EXPECT_EQ(std::string(result.status().message()).rfind("PRESERVE_WOULD_DISCLOSE", 0), 0u);
  EXPECT_EQ(t.log.Take(), Calls{});
  EXPECT_TRUE(t.IsMapped(5, kPrivate));
  EXPECT_EQ(t.pages.Mark(Gfn(5), kPrivate), 42u);
}

TEST(InPlaceConversionTest, D6_AReservationThatFailsChangesNothing) {
  TestSpace t;
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  t.pages.Mark(Gfn(5), kPrivate) = 42;
  t.pages.fail_reserve_in = 1;
  const uint64_t before = t.space->stats().invalidations;
  const auto result =
      t.Convert({Frames(5, 1), Frames(9, 1)}, kShared, Content::kPreserve, Requester::kGuest);
  EXPECT_TRUE(absl::IsResourceExhausted(result.status()));
  EXPECT_EQ(t.pages.allocated(kShared), 0u);
  EXPECT_TRUE(t.IsMapped(5, kPrivate));
  EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k2M);
  EXPECT_EQ(t.pages.Mark(Gfn(5), kPrivate), 42u);
  EXPECT_EQ(t.space->GetMemoryAttributes().size(), 1u);
  EXPECT_EQ(t.space->stats().invalidations, before);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(InPlaceConversionTest, D6_FailsCleanlyAtEachReservation) {
  const std::vector<GfnRange> ranges = {Frames(5, 1), Frames(9, 600), Frames(1200, 3)};
  for (const MemoryKind to : kAllKinds) {
    for (int failing = 0; failing < 3; ++failing) {
      TestSpace t;
      const MemoryKind from = Other(to);
      ASSERT_TRUE(t.Convert({Frames(0, 2048)}, from).ok());
      for (uint64_t gfn = 0; gfn < 2048; ++gfn) {
        t.Touch(gfn, from);
        t.pages.Mark(Gfn(gfn), from) = gfn + 1;
      }
      const AddressSpaceStats before = t.space->stats();
      t.pages.fail_reserve_in = failing;
      EXPECT_TRUE(absl::IsResourceExhausted(
          t.Convert(ranges, to, Content::kPreserve, Requester::kGuest).status()));
      EXPECT_EQ(t.pages.allocated(to), 0u);
      for (uint64_t gfn = 0; gfn < 2048; ++gfn) {
        ASSERT_EQ(t.pages.Mark(Gfn(gfn), from), gfn + 1);
        ASSERT_EQ(t.LevelOf(gfn, from), Level::k2M);
      }
      EXPECT_EQ(t.space->stats().invalidations, before.invalidations);
      EXPECT_EQ(t.space->stats().flushes_range, before.flushes_range);
      EXPECT_EQ(t.space->GetMemoryAttributes().size(), 1u);
      EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
      // And then it goes through.
      ASSERT_TRUE(t.Convert(ranges, to, Content::kPreserve, Requester::kGuest).ok());
      for (uint64_t gfn = 0; gfn < 2048; ++gfn) {
        const bool converted = gfn == 5 || (gfn >= 9 && gfn < 609) || (gfn >= 1200 && gfn < 1203);
        ASSERT_EQ(t.pages.Mark(Gfn(gfn), converted ? to : from), gfn + 1);
        ASSERT_EQ(t.pages.Mark(Gfn(gfn), converted ? from : to), 0u);
      }
    }
  }
}

}  // namespace
}  // namespace twinroot::mmu
