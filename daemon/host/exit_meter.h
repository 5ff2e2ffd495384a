// Counts what vCPUs bring to the daemon and how long it takes to answer them, over all VMs.
//
// Thread-safe. Counting takes no lock: each thread adds to one of a few lanes, which are summed
// when somebody asks; a sum is exact when nobody counts beside it.
#ifndef TWINROOT_DAEMON_HOST_EXIT_METER_H_
#define TWINROOT_DAEMON_HOST_EXIT_METER_H_

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <variant>

#include "mmu/types/memory_kind.h"
#include "mmu/vm/fault.h"

namespace twinroot::host {

class ExitMeter {
 public:
  enum class Reason : uint8_t { kEptViolation, kEptMisconfiguration, kShadowFault, kMapGpa };
  static constexpr size_t kReasons = 4;
  // Which alternative of mmu::FaultOutcome it was.
  static constexpr size_t kOutcomes = std::variant_size_v<mmu::FaultOutcome>;
  // Upper bounds, in nanoseconds; what is above all of them is counted behind the last.
  static constexpr std::array<uint64_t, 12> kBounds = {
      1'000,   2'500,   5'000,     10'000,     25'000,      50'000,
      100'000, 250'000, 1'000'000, 10'000'000, 100'000'000, 1'000'000'000};

  struct Latency {
    std::array<uint64_t, kBounds.size() + 1> counts{};  // each bucket by itself
    uint64_t nanoseconds = 0;
  };

  void CountExit(Reason reason) { Increment(Mine().exits[static_cast<size_t>(reason)], 1); }
  // An EPT violation through this alias.
  void CountFault(mmu::MemoryKind alias, size_t outcome, std::chrono::nanoseconds took) {
    const auto nanoseconds = static_cast<uint64_t>(took.count());
    size_t bucket = 0;
    while (bucket < kBounds.size() && nanoseconds > kBounds[bucket]) ++bucket;
    Cell& cell = Mine().faults[static_cast<size_t>(alias)][outcome];
    Increment(cell.counts[bucket], 1);
    Increment(cell.nanoseconds, nanoseconds);
  }

  uint64_t exits(Reason reason) const {
    uint64_t sum = 0;
    for (const Lane& lane : lanes_) sum += Load(lane.exits[static_cast<size_t>(reason)]);
    return sum;
  }
  Latency latency(mmu::MemoryKind alias, size_t outcome) const {
    Latency sum;
    for (const Lane& lane : lanes_) {
      const Cell& cell = lane.faults[static_cast<size_t>(alias)][outcome];
      for (size_t i = 0; i < sum.counts.size(); ++i) sum.counts[i] += Load(cell.counts[i]);
      sum.nanoseconds += Load(cell.nanoseconds);
    }
    return sum;
  }

 private:
  using Counter = std::atomic<uint64_t>;
  struct Cell {
    std::array<Counter, kBounds.size() + 1> counts{};
    Counter nanoseconds{0};
  };
  struct alignas(64) Lane {
    std::array<Counter, kReasons> exits{};
    std::array<std::array<Cell, kOutcomes>, 2> faults{};
  };

  static void Increment(Counter& counter, uint64_t by) {
    counter.fetch_add(by, std::memory_order_relaxed);
  }
  static uint64_t Load(const Counter& counter) { return counter.load(std::memory_order_relaxed); }

  Lane& Mine() {
    static std::atomic<size_t> threads{0};
    thread_local const size_t mine = threads.fetch_add(1, std::memory_order_relaxed);
    return lanes_[mine % lanes_.size()];
  }

  std::array<Lane, 16> lanes_{};
};

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_EXIT_METER_H_
