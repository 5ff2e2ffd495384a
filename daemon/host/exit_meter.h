// Counts what vCPUs bring to the daemon and how long it takes to answer them, over all VMs.
//
// Thread-safe. Counting takes no lock and, of the first 128 threads, writes no line of another's;
// a sum is exact when nobody counts beside it.
#ifndef TWINROOT_DAEMON_HOST_EXIT_METER_H_
#define TWINROOT_DAEMON_HOST_EXIT_METER_H_

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <variant>

#include "mmu/tables/lane_counters.h"
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

  // All but EPT violations, which CountFault counts.
  void CountExit(Reason reason) { counters_.Add(CellOf(reason)); }
  // An EPT violation through this alias.
  void CountFault(mmu::MemoryKind alias, size_t outcome, std::chrono::nanoseconds took) {
    const auto nanoseconds = static_cast<uint64_t>(took.count());
    size_t bucket = 0;
    while (bucket < kBounds.size() && nanoseconds > kBounds[bucket]) ++bucket;
    counters_.Add(CellOf(alias, outcome, bucket));
    counters_.Add(CellOf(alias, outcome, kNanoseconds), nanoseconds);
  }

  uint64_t exits(Reason reason) const {
    if (reason != Reason::kEptViolation) return counters_.Sum(CellOf(reason));
    uint64_t sum = 0;
    for (const mmu::MemoryKind alias : mmu::kAllKinds) {
      for (size_t outcome = 0; outcome < kOutcomes; ++outcome) {
        for (const uint64_t count : latency(alias, outcome).counts) sum += count;
      }
    }
    return sum;
  }
  Latency latency(mmu::MemoryKind alias, size_t outcome) const {
    Latency latency;
    for (size_t i = 0; i < latency.counts.size(); ++i) {
      latency.counts[i] = counters_.Sum(CellOf(alias, outcome, i));
    }
    latency.nanoseconds = counters_.Sum(CellOf(alias, outcome, kNanoseconds));
    return latency;
  }

 private:
  static constexpr size_t kNanoseconds = kBounds.size() + 1;  // behind the buckets
  static constexpr size_t kCellsOfOutcome = kNanoseconds + 1;
  // First the exits, then the faults: by alias, outcome and bucket.
  enum class Cell : size_t { kCount = kReasons + 2 * kOutcomes * kCellsOfOutcome };
  static constexpr Cell CellOf(Reason reason) { return Cell{static_cast<size_t>(reason)}; }
  static constexpr Cell CellOf(mmu::MemoryKind alias, size_t outcome, size_t part) {
    return Cell{kReasons + (static_cast<size_t>(alias) * kOutcomes + outcome) * kCellsOfOutcome +
                part};
  }

  mmu::LaneCounters<Cell> counters_;
};

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_EXIT_METER_H_
