#include "daemon/memory/hpa_space.h"

#include <gtest/gtest.h>

#include <optional>
#include <utility>
#include <vector>

namespace twinroot::memory {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

TEST(HpaSpace, RangesAreAlignedDisjointAndNeverHoldAddressZero) {
  HpaSpace space(39);
  std::vector<HpaRange> ranges;
  for (int i = 1; i <= 5; ++i) {
    absl::StatusOr<HpaRange> range = space.Allocate(kGiB * i - 4096);
    ASSERT_TRUE(range.ok());
    EXPECT_EQ(range->base().value % kGiB, 0u);
    EXPECT_GE(range->base().value, kGiB);
    EXPECT_EQ(range->size(), kGiB * i);
    for (const HpaRange& other : ranges) {
      EXPECT_TRUE(range->base().value >= other.base().value + other.size() ||
                  other.base().value >= range->base().value + range->size());
    }
    ranges.push_back(*std::move(range));
  }
}

TEST(HpaSpace, WhatIsGivenBackIsOnePieceAgainInWhateverOrder) {
  HpaSpace space(39);  // 512 GiB, the first is kept
  for (const bool backwards : {false, true}) {
    std::vector<std::optional<HpaRange>> ranges;
    for (int i = 0; i < 511; ++i) {
      absl::StatusOr<HpaRange> range = space.Allocate(kGiB);
      ASSERT_TRUE(range.ok()) << i;
      ranges.emplace_back(*std::move(range));
    }
    EXPECT_EQ(space.Allocate(1).status().code(), absl::StatusCode::kResourceExhausted);
    if (backwards) {
      while (!ranges.empty()) ranges.pop_back();
    } else {
      for (auto& range : ranges) range.reset();
    }
    absl::StatusOr<HpaRange> whole = space.Allocate(511 * kGiB);
    EXPECT_TRUE(whole.ok()) << whole.status();
  }
}

TEST(HpaSpace, AMovedFromRangeGivesNothingBack) {
  HpaSpace space(39);
  absl::StatusOr<HpaRange> first = space.Allocate(510 * kGiB);
  ASSERT_TRUE(first.ok());
  HpaRange kept = *std::move(first);
  { HpaRange moved_from = HpaRange(); }
  EXPECT_TRUE(space.Allocate(kGiB).ok());
  EXPECT_FALSE(space.Allocate(2 * kGiB).ok());
  EXPECT_EQ(kept.size(), 510 * kGiB);
}

}  // namespace
}  // namespace twinroot::memory
