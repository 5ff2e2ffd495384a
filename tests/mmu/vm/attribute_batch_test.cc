// Many ranges in one call.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
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

TEST(AttributeBatchTest, D5_ManyRangesGiveOneInvalidationAndOneFlush) {
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

TEST(AttributeBatchTest, D5_AnyBadRangeRefusesTheWholeCallAndIsNamed) {
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
    AttributeChange change{.ranges = {good, c.bad}, .kind = kShared};
    change.atomicity = Atomicity::kEach;  // a bad range is the caller's, not the environment's
    const auto result = t.space->SetMemoryAttributes(change);
    EXPECT_NE(result.status().ToString().find("ranges[1]"), std::string::npos) << result.status();
    EXPECT_TRUE(absl::IsInvalidArgument(result.status())) << c.name << result.status();
    EXPECT_NE(result.status().ToString().find(c.name), std::string::npos) << result.status();
    EXPECT_EQ(t.log.Take(), Calls{});
    EXPECT_TRUE(t.IsMapped(0, kPrivate));
    EXPECT_EQ(t.space->GetMemoryAttributes().size(), 1u);
  }
}

TEST(AttributeBatchTest, AChangeWithoutATargetIsRefused) {
  TestSpace t;
  EXPECT_TRUE(
      absl::IsInvalidArgument(t.space->SetMemoryAttributes({.ranges = {Frames(0, 1)}}).status()));
}

// Two slots; the second has no shared backing.
class RefusedRangeTest : public testing::Test {
 protected:
  RefusedRangeTest() : t_({.add_slot = false}) {
    EXPECT_TRUE(t_.space->AddMemslot({Frames(0, 1024), t_.kPrivatePfn, t_.kSharedPfn}).ok());
    EXPECT_TRUE(
        t_.space->AddMemslot({Frames(1024, 1024), t_.kPrivatePfn + 1024, std::nullopt}).ok());
    for (uint64_t gfn = 0; gfn < 2048; gfn += 512) EXPECT_TRUE(t_.Fixes(gfn, kPrivate));
    t_.log.Take();
    change_.ranges = {Frames(600, 2), Frames(1020, 8), Frames(5, 1)};
    change_.kind = kShared;
    before_ = t_.space->stats().invalidations;
  }

  TestSpace t_;
  AttributeChange change_;
  uint64_t before_;
};

TEST_F(RefusedRangeTest, D5_EachRangeThatCanChangesAndTheOtherSaysWhyNot) {
  change_.atomicity = Atomicity::kEach;
  const auto result = t_.space->SetMemoryAttributes(change_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->converted, (std::vector<GfnRange>{Frames(5, 1), Frames(600, 2)}));
  ASSERT_EQ(result->per_range.size(), 3u);
  EXPECT_EQ(result->per_range[0].converted, (std::vector<GfnRange>{Frames(600, 2)}));
  EXPECT_TRUE(absl::IsFailedPrecondition(result->per_range[1].status));
  EXPECT_NE(result->per_range[1].status.ToString().find("0x400000"), std::string::npos);
  EXPECT_TRUE(result->per_range[1].converted.empty());
  EXPECT_EQ(result->per_range[2].converted, (std::vector<GfnRange>{Frames(5, 1)}));
  // Its part in the first slot stays too.
  EXPECT_TRUE(t_.IsMapped(1020, kPrivate));
  EXPECT_FALSE(t_.IsMapped(600, kPrivate));
  EXPECT_EQ(t_.space->stats().invalidations, before_ + 1);
  EXPECT_EQ(CountOf(t_.log.Take(), "flush"), 1u);
  EXPECT_TRUE(t_.space->Audit().ok()) << t_.space->Audit();
}

TEST_F(RefusedRangeTest, D5_AllOrNothingNamesTheFirstFailureAndChangesNothing) {
  const auto result = t_.space->SetMemoryAttributes(change_);
  EXPECT_TRUE(absl::IsFailedPrecondition(result.status())) << result.status();
  EXPECT_NE(result.status().ToString().find("ranges[1]"), std::string::npos) << result.status();
  EXPECT_EQ(t_.space->GetMemoryAttributes().size(), 1u);
  EXPECT_EQ(t_.space->stats().invalidations, before_);
  EXPECT_EQ(t_.space->stats().splits_conversion, 0u);
  EXPECT_EQ(t_.log.Take(), Calls{});
  EXPECT_TRUE(t_.IsMapped(600, kPrivate));
}

TEST(AttributeBatchTest, D5_EachFailingReservationHoldsBackItsRangeOnly) {
  for (size_t failing = 0; failing < 3; ++failing) {
    TestSpace t;
    AttributeChange change{.ranges = {Frames(600, 2), Frames(5, 1), Frames(1030, 4)},
                           .kind = kShared,
                           .content = Content::kPreserve,
                           .requester = Requester::kGuest,
                           .atomicity = Atomicity::kEach};
    for (const GfnRange& range : change.ranges) {
      ASSERT_TRUE(t.Fixes(range.first.value, kPrivate));
      t.pages.Mark(range.first, kPrivate) = range.first.value;
    }
    t.pages.fail_reserve_in = static_cast<int>(failing);
    const auto result = t.space->SetMemoryAttributes(change);
    ASSERT_TRUE(result.ok()) << result.status();
    uint64_t converted = 0;
    for (size_t i = 0; i < 3; ++i) {
      const GfnRange range = change.ranges[i];
      const MemoryKind now = i == failing ? kPrivate : kShared;
      EXPECT_EQ(absl::IsResourceExhausted(result->per_range[i].status), i == failing);
      EXPECT_EQ(result->per_range[i].converted.empty(), i == failing);
      EXPECT_EQ(t.pages.Mark(range.first, now), range.first.value);
      EXPECT_EQ(t.pages.Mark(range.first, Other(now)), 0u);
      EXPECT_EQ(t.IsMapped(range.first.value, kPrivate), i == failing);
      if (i != failing) converted += range.count;
    }
    EXPECT_EQ(t.pages.allocated(kShared), converted);
    EXPECT_EQ(t.space->stats().shared_frames_attribute, converted);
    EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
  }
}

}  // namespace
}  // namespace twinroot::mmu
