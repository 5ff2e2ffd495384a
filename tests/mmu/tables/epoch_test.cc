#include "mmu/tables/epoch.h"

#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <chrono>
#include <set>
#include <thread>
#include <vector>

namespace twinroot::mmu {
namespace {

// Stands in `depth` guards until told to leave the next one.
class Reader {
 public:
  explicit Reader(int depth) : thread_([this, depth] { Nest(depth); }) {
    while (!inside_) std::this_thread::yield();
  }
  ~Reader() { thread_.join(); }
  void LeaveOne() { ++leave_; }

 private:
  void Nest(int depth) {
    const EpochGuard guard;
    if (depth > 1) {
      Nest(depth - 1);
    } else {
      inside_ = true;
    }
    while (leave_ == 0) std::this_thread::yield();
    --leave_;
  }
  std::atomic<bool> inside_{false};
  std::atomic<int> leave_{0};
  std::thread thread_;
};

TEST(EpochTest, SynchronizeWaitsForTheOutermostGuardOfAnotherThread) {
  Reader reader(2);
  std::atomic<bool> returned{false};
  std::thread writer([&] {
    SynchronizeEpoch();
    returned = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_FALSE(returned);
  reader.LeaveOne();
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_FALSE(returned) << "the outer guard still stands";
  reader.LeaveOne();
  writer.join();
  EXPECT_TRUE(returned);
}

TEST(EpochTest, SynchronizeReturnsAlthoughThereIsNeverAMomentWithoutAGuard) {
  // Two readers hand over: each leaves only when the other stands in a guard of its own.
  std::atomic<int> turn{0};
  std::atomic<bool> stop{false};
  const auto reader = [&](int me) {
    for (int next = me; !stop; next += 2) {
      while (turn != next) {
        if (stop) return;
        std::this_thread::yield();
      }
      const EpochGuard guard;
      ++turn;
      while (turn == next + 1 && !stop) std::this_thread::yield();
    }
  };
  std::thread even(reader, 0), odd(reader, 1);
  while (turn < 4) std::this_thread::yield();
  for (int i = 0; i < 3; ++i) SynchronizeEpoch();
  stop = true;
  even.join();
  odd.join();
}

TEST(EpochTest, WhatAReaderDidIsSeenAfterSynchronize) {
  int plain = 0;
  std::atomic<bool> inside{false};
  std::thread reader([&] {
    const EpochGuard guard;
    inside = true;
    plain = 42;  // a race, unless Synchronize orders it
  });
  while (!inside) std::this_thread::yield();
  SynchronizeEpoch();
  EXPECT_EQ(plain, 42);
  reader.join();
}

std::set<uint32_t> IndicesOf(int threads) {
  std::vector<uint32_t> indices(threads);
  std::barrier all_live(threads);
  std::vector<std::thread> live;
  for (int i = 0; i < threads; ++i) {
    live.emplace_back([&, i] {
      indices[i] = EpochThread::Index();
      EXPECT_EQ(EpochThread::Index(), indices[i]);
      all_live.arrive_and_wait();
    });
  }
  for (std::thread& thread : live) thread.join();
  return {indices.begin(), indices.end()};
}

TEST(EpochTest, IndicesAreUniqueAmongLiveThreadsAndHandedOn) {
  const uint32_t mine = EpochThread::Index();
  const std::set<uint32_t> first = IndicesOf(20);
  EXPECT_EQ(first.size(), 20u);
  EXPECT_EQ(first.count(mine), 0u);
  for (int round = 0; round < 5; ++round) EXPECT_EQ(IndicesOf(20), first);
}

}  // namespace
}  // namespace twinroot::mmu
