// The walk "SetMemoryAttributes".
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "tests/fakes/test_space.h"

namespace twinroot::mmu {
namespace {

constexpr auto kPrivate = MemoryKind::kPrivate;
constexpr auto kShared = MemoryKind::kShared;
using Calls = std::vector<std::string>;

size_t CountOf(const Calls& calls, const std::string& verb) {
  return static_cast<size_t>(std::count_if(
      calls.begin(), calls.end(), [&](const std::string& c) { return c.rfind(verb, 0) == 0; }));
}

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
  MemoryKind during = kShared;
  bool mapped_during = true;
  t.pages.on_content = [&](GfnRange) {
    during = t.space->Translate(Gpa(0x5000), kPrivate)->attribute;
    mapped_during = t.IsMapped(5, kPrivate);
  };
  ASSERT_TRUE(t.Convert({Frames(5, 2)}, kShared, Content::kPreserve, Requester::kGuest).ok());
  EXPECT_EQ(t.log.Take(), (Calls{"reserve shared 0x5+2", "flush private 0x0+134217728",
                                 "copy private 0x5+2", "discard private 0x5+2"}));
  EXPECT_FALSE(mapped_during);
  EXPECT_EQ(during, kPrivate);  // not committed yet
  EXPECT_EQ(t.space->GetMemoryAttributes().size(), 3u);
}

TEST(AttributeChangeTest, D4_FaultsInTheRangeRetryMeanwhileAndThoseBesideItGetSmallPages) {
  TestSpace t;
  ASSERT_TRUE(t.Fixes(600, kPrivate));
  ASSERT_EQ(t.LevelOf(600, kPrivate), Level::k2M);
  int calls = 0;
  t.pages.on_content = [&](GfnRange) {
    ++calls;
    for (const uint64_t gfn : {600, 601}) {
      for (const MemoryKind kind : kAllKinds) {
        EXPECT_TRUE(std::holds_alternative<Retry>(t.Touch(gfn, kind)));
      }
    }
    // The rest of the large page goes on, but never under a large leaf.
    for (const uint64_t gfn : {512, 599, 602, 1023}) {
      EXPECT_TRUE(t.Fixes(gfn, kPrivate)) << gfn;
      EXPECT_EQ(t.LevelOf(gfn, kPrivate), Level::k4K);
    }
    EXPECT_TRUE(t.Fixes(5, kPrivate));
    EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k2M);
  };
  ASSERT_TRUE(t.Convert({Frames(600, 2)}, kShared).ok());
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(t.Fixes(600, kShared));
  EXPECT_TRUE(std::holds_alternative<MemoryFaultExit>(t.Touch(600, kPrivate)));
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

TEST(AttributeChangeTest, D5_ManyRangesGiveOneInvalidationAndOneFlush) {
  TestSpace t({.pool_pages = 64, .max_level = Level::k4K});
  std::vector<GfnRange> ranges;
  for (uint64_t gfn = 0; gfn < 2048; gfn += 8) {
    ASSERT_TRUE(t.Fixes(gfn, kPrivate));
    ranges.push_back(Frames(gfn, 1));
  }
  t.log.Take();
  const uint64_t before = t.space->stats().invalidations;
  const auto result = t.Convert(ranges, kShared);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->converted.size(), 256u);
  EXPECT_EQ(CountOf(t.log.Take(), "flush"), 1u);
  EXPECT_EQ(t.space->stats().invalidations, before + 1);
  EXPECT_EQ(t.space->stats().flushes_range, 1u);
}

TEST(AttributeChangeTest, D5_AnyBadRangeRefusesTheWholeCallAndIsNamed) {
  const GfnRange good = Frames(0, 4);
  const struct {
    GfnRange bad;
    std::string name;
  } cases[] = {
      {Frames(7, 0), "0x7000"},
      {Frames(2047, 2), "0x7ff000"},
      {Frames(5000, 1), "0x1388000"},
      {Frames(2, 4), "0x2000"},
      {Frames(10, ~uint64_t{0}), "0xa000"},
      {Frames(uint64_t{1} << 34, 1), "0x400000000000"},        // the shared bit: an alias (A7)
      {Frames((uint64_t{1} << 34) + 1, 1), "0x400000001000"},  // the same
      {Frames(uint64_t{1} << 40, 1), "0x10000000000000"},
  };
  for (const auto& c : cases) {
    TestSpace t;
    ASSERT_TRUE(t.Fixes(0, kPrivate));
    t.log.Take();
    const auto result = t.Convert({good, c.bad}, kShared);
    EXPECT_TRUE(absl::IsInvalidArgument(result.status())) << c.name << result.status();
    EXPECT_NE(result.status().ToString().find(c.name), std::string::npos) << result.status();
    EXPECT_EQ(t.log.Take(), Calls{});
    EXPECT_TRUE(t.IsMapped(0, kPrivate));
    EXPECT_EQ(t.space->GetMemoryAttributes().size(), 1u);
  }
}

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

TEST(AttributeChangeTest, D6_TheHostMayNotPreserveToShared) {
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

TEST(AttributeChangeTest, D6_AReservationThatFailsChangesNothing) {
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
  ASSERT_TRUE(t.Convert({Frames(5, 1)}, kShared).ok());
  EXPECT_EQ(t.space->stats().table_pages, roots + 3);
  ASSERT_TRUE(t.Convert({Frames(600, 1)}, kShared).ok());
  EXPECT_EQ(t.space->stats().table_pages, roots);
  EXPECT_EQ(t.pool.stats().used, roots);
  t.space.reset();
  EXPECT_EQ(t.pool.stats().used, 0u);
}

}  // namespace
}  // namespace twinroot::mmu
