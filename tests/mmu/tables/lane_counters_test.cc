#include "mmu/tables/lane_counters.h"

#include <gtest/gtest.h>

#include <array>
#include <barrier>
#include <thread>
#include <vector>

namespace twinroot::mmu {
namespace {

enum class Beans { kRed, kGreen, kCount };

// More threads at once than there are lanes: the rest share one.
TEST(LaneCountersTest, SumsAreExactOverMoreThreadsThanLanes) {
  constexpr int kThreads = 200;
  constexpr int kRounds = 500;
  LaneCounters<Beans> counters;
  std::barrier all_live(kThreads);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      EpochThread::Index();
      all_live.arrive_and_wait();
      for (int round = 0; round < kRounds; ++round) {
        counters.Add(Beans::kRed);
        counters.Add(Beans::kGreen, 3);
      }
      all_live.arrive_and_wait();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counters.Sum(Beans::kRed), uint64_t{kThreads} * kRounds);
  EXPECT_EQ(counters.Sum(Beans::kGreen), uint64_t{3} * kThreads * kRounds);
}

TEST(LaneCountersTest, AllSumsAtOnceAreTheSumsOneByOne) {
  LaneCounters<Beans> counters;
  EXPECT_EQ(counters.Sums(), (std::array<uint64_t, 2>{0, 0}));
  counters.Add(Beans::kRed, 5);
  for (int i = 0; i < 20; ++i) {
    std::thread([&] { counters.Add(Beans::kGreen, 3); }).join();
  }
  std::thread([&] { counters.Add(Beans::kRed, ~uint64_t{0}); }).join();
  EXPECT_EQ(counters.Sums(), (std::array<uint64_t, 2>{4, 60}));
}

TEST(LaneCountersTest, WhatThreadsCountedOutlivesThem) {
  LaneCounters<Beans> counters;
  for (int i = 0; i < 50; ++i) {
    std::thread([&] { counters.Add(Beans::kRed, 2); }).join();
  }
  EXPECT_EQ(counters.Sum(Beans::kRed), 100u);
}

TEST(LaneCountersTest, WhatOneThreadAddsAnotherMayTakeAway) {
  LaneCounters<Beans> counters;
  counters.Add(Beans::kGreen, 7);
  std::thread([&] { counters.Add(Beans::kGreen, ~uint64_t{6}); }).join();
  EXPECT_EQ(counters.Sum(Beans::kGreen), 0u);
  EXPECT_EQ(counters.Sum(Beans::kRed), 0u);
}

TEST(LaneCountersTest, ASumBesideAddsIsNeverMoreThanWhatIsAddedInTheEnd) {
  LaneCounters<Beans> counters;
  constexpr uint64_t kAdds = 20000;
  std::thread adder([&] {
    for (uint64_t i = 0; i < kAdds; ++i) counters.Add(Beans::kRed);
  });
  uint64_t last = 0;
  for (int i = 0; i < 1000; ++i) {
    const uint64_t now = counters.Sum(Beans::kRed);
    ASSERT_GE(now, last);
    ASSERT_LE(now, kAdds);
    last = now;
  }
  adder.join();
  EXPECT_EQ(counters.Sum(Beans::kRed), kAdds);
}

}  // namespace
}  // namespace twinroot::mmu
