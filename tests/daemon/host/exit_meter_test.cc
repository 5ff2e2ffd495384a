#include "daemon/host/exit_meter.h"

#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace twinroot::host {
namespace {

using mmu::MemoryKind;
using std::chrono::nanoseconds;

constexpr size_t kFixed = 0;

TEST(ExitMeter, ABoundBelongsToItsBucketAndWhatIsAboveAllToTheLast) {
  const auto meter = std::make_unique<ExitMeter>();
  for (const int64_t took : {0, 1'000, 1'001, 1'000'000'000, 1'000'000'001}) {
    meter->CountFault(MemoryKind::kPrivate, kFixed, nanoseconds(took));
  }
  const ExitMeter::Latency latency = meter->latency(MemoryKind::kPrivate, kFixed);
  EXPECT_EQ(latency.counts.front(), 2u);
  EXPECT_EQ(latency.counts[1], 1u);
  EXPECT_EQ(latency.counts[latency.counts.size() - 2], 1u);
  EXPECT_EQ(latency.counts.back(), 1u);
  EXPECT_EQ(latency.nanoseconds, 2'000'002'002u);
}

TEST(ExitMeter, AliasesAndOutcomesAreCountedApart) {
  const auto meter = std::make_unique<ExitMeter>();
  meter->CountFault(MemoryKind::kShared, 2, nanoseconds(5));
  EXPECT_EQ(meter->latency(MemoryKind::kShared, 2).counts.front(), 1u);
  EXPECT_EQ(meter->latency(MemoryKind::kPrivate, 2).counts.front(), 0u);
  EXPECT_EQ(meter->latency(MemoryKind::kShared, 1).counts.front(), 0u);
}

TEST(ExitMeter, NothingThatManyThreadsCountIsLost) {
  constexpr uint64_t kThreads = 160, kEach = 500;  // more threads than lanes
  const auto meter = std::make_unique<ExitMeter>();
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&meter] {
      for (uint64_t n = 0; n < kEach; ++n) {
        meter->CountExit(ExitMeter::Reason::kMapGpa);
        meter->CountFault(MemoryKind::kShared, kFixed, nanoseconds(3));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(meter->exits(ExitMeter::Reason::kMapGpa), kThreads * kEach);
  EXPECT_EQ(meter->exits(ExitMeter::Reason::kEptViolation), kThreads * kEach);
  EXPECT_EQ(meter->latency(MemoryKind::kShared, kFixed).nanoseconds, 3 * kThreads * kEach);
}

}  // namespace
}  // namespace twinroot::host
