// daemon/events/lossless: who waits for whom, and for how long.
#include "daemon/events/lossless.h"

#include "gtest/gtest.h"

namespace twinroot::events {
namespace {

constexpr uint64_t kRoom = LosslessWatches::kRoom;
const absl::Time kNow = absl::FromUnixSeconds(1'700'000'000);

Filter Only(const std::string& vm) {
  v1::EventFilter filter;
  filter.set_vm(vm);
  return Filter(filter);
}

TEST(Lossless, NobodyWaitsWithoutAWatch) {
  LosslessWatches watches;
  EXPECT_FALSE(watches.any());
  EXPECT_EQ(watches.HeldUntil("a", 1 << 20, kNow), std::nullopt);
  EXPECT_EQ(watches.oldest(), std::numeric_limits<uint64_t>::max());
}

TEST(Lossless, AWatchHoldsOnlyWhileItIsFarBehindAndUntilHalfTheRoomIsFree) {
  LosslessWatches watches;
  const auto watch = watches.Add({}, 100, absl::Seconds(10));
  int changes = 0;
  const auto handle = watches.OnChange([&] { ++changes; });
  EXPECT_EQ(watches.HeldUntil("a", 100 + kRoom, kNow), std::nullopt);
  const uint64_t next = 101 + kRoom;
  EXPECT_EQ(watches.HeldUntil("a", next, kNow), kNow + absl::Seconds(10));
  EXPECT_EQ(watches.HeldUntil("b", next, kNow + absl::Seconds(1)), kNow + absl::Seconds(10));
  // A little progress is not enough, and does not begin the time anew.
  watches.Reached(*watch, 102, next);
  EXPECT_EQ(changes, 0);
  EXPECT_EQ(watches.HeldUntil("a", next, kNow + absl::Seconds(2)), kNow + absl::Seconds(10));
  watches.Reached(*watch, next - kRoom / 2, next);
  EXPECT_EQ(changes, 1);
  EXPECT_EQ(watches.HeldUntil("a", next, kNow + absl::Seconds(3)), std::nullopt);
  // Behind again, later: the whole time again.
  EXPECT_EQ(watches.HeldUntil("a", next + kRoom, kNow + absl::Seconds(20)),
            kNow + absl::Seconds(30));
  EXPECT_FALSE(watch->expired());
}

TEST(Lossless, AWatchHoldsOnlyTheVmsOfItsFilter) {
  LosslessWatches watches;
  const auto watch = watches.Add(Only("a"), 0, absl::Seconds(1));
  EXPECT_EQ(watches.HeldUntil("b", 2 * kRoom, kNow), std::nullopt);
  EXPECT_NE(watches.HeldUntil("a", 2 * kRoom, kNow), std::nullopt);
}

TEST(Lossless, TheMostPatientWatchDecides) {
  LosslessWatches watches;
  const auto one = watches.Add({}, 0, absl::Seconds(1));
  const auto two = watches.Add({}, 0, absl::Seconds(5));
  EXPECT_EQ(watches.HeldUntil("a", 2 * kRoom, kNow), kNow + absl::Seconds(5));
  EXPECT_EQ(watches.HeldUntil("a", 2 * kRoom, kNow + absl::Seconds(1)), kNow + absl::Seconds(5));
  EXPECT_TRUE(one->expired());
  EXPECT_FALSE(two->expired());
}

TEST(Lossless, AnExpiredWatchHoldsNothingAnyMore) {
  LosslessWatches watches;
  const auto watch = watches.Add({}, 7, absl::Seconds(1));
  int changes = 0;
  const auto handle = watches.OnChange([&] { ++changes; });
  EXPECT_EQ(watches.oldest(), 7u);
  // Nobody asked: the daemon's own look finds it.
  watches.Look(2 * kRoom, kNow);
  EXPECT_FALSE(watch->expired());
  watches.Look(2 * kRoom, kNow + absl::Seconds(1));
  EXPECT_TRUE(watch->expired());
  EXPECT_EQ(changes, 1);
  EXPECT_EQ(watches.HeldUntil("a", 2 * kRoom, kNow + absl::Seconds(1)), std::nullopt);
  EXPECT_EQ(watches.oldest(), std::numeric_limits<uint64_t>::max());
}

TEST(Lossless, AWatchThatEndsLetsGo) {
  LosslessWatches watches;
  const auto watch = watches.Add({}, 0, absl::Seconds(1));
  EXPECT_NE(watches.HeldUntil("a", 2 * kRoom, kNow), std::nullopt);
  int changes = 0;
  const auto handle = watches.OnChange([&] { ++changes; });
  watches.Remove(*watch);
  EXPECT_EQ(changes, 1);
  EXPECT_FALSE(watches.any());
  EXPECT_EQ(watches.HeldUntil("a", 2 * kRoom, kNow), std::nullopt);
}

}  // namespace
}  // namespace twinroot::events
