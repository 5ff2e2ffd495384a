// Counters that many threads add to and nobody shares: each thread has its own lane of them, found
// by EpochThread::Index. Summed when somebody asks.
//
// Thread-safe. Add costs a load and a store on a line of this thread's own. Threads beyond kLanes,
// and all if there is no memory for a lane, share one lane by atomic additions. A sum is exact when
// no Add runs beside it.
#ifndef TWINROOT_MMU_TABLES_LANE_COUNTERS_H_
#define TWINROOT_MMU_TABLES_LANE_COUNTERS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>

#include "mmu/tables/epoch.h"

namespace twinroot::mmu {

// `Counter` is an enum class whose last enumerator is kCount.
template <typename Counter>
class LaneCounters {
 public:
  LaneCounters() = default;
  ~LaneCounters() {
    for (auto& lane : lanes_) delete lane.load(std::memory_order_relaxed);
  }
  LaneCounters(const LaneCounters&) = delete;
  LaneCounters& operator=(const LaneCounters&) = delete;

  // `delta` may be "negative": sums wrap.
  void Add(Counter counter, uint64_t delta = 1) {
    if (Lane* lane = Mine()) [[likely]] {
      lane->Add(counter, delta);
    } else {
      common_.values[static_cast<size_t>(counter)].fetch_add(delta, std::memory_order_relaxed);
    }
  }

  // All sums in one pass over the lanes, for who wants many of them.
  std::array<uint64_t, static_cast<size_t>(Counter::kCount)> Sums() const {
    std::array<uint64_t, static_cast<size_t>(Counter::kCount)> sums;
    for (size_t i = 0; i < sums.size(); ++i) {
      sums[i] = common_.values[i].load(std::memory_order_relaxed);
    }
    for (const auto& slot : lanes_) {
      const Lane* lane = slot.load(std::memory_order_acquire);
      if (lane == nullptr) continue;
      for (size_t i = 0; i < sums.size(); ++i) {
        sums[i] += lane->values[i].load(std::memory_order_relaxed);
      }
    }
    return sums;
  }

  uint64_t Sum(Counter counter) const {
    const size_t i = static_cast<size_t>(counter);
    uint64_t sum = common_.values[i].load(std::memory_order_relaxed);
    for (const auto& slot : lanes_) {
      const Lane* lane = slot.load(std::memory_order_acquire);
      if (lane != nullptr) sum += lane->values[i].load(std::memory_order_relaxed);
    }
    return sum;
  }

 private:
  static constexpr size_t kLanes = 128;
  struct alignas(64) Lane {
    // By its own thread.
    void Add(Counter counter, uint64_t delta) {
      auto& value = values[static_cast<size_t>(counter)];
      value.store(value.load(std::memory_order_relaxed) + delta, std::memory_order_relaxed);
    }
    std::array<std::atomic<uint64_t>, static_cast<size_t>(Counter::kCount)> values{};
  };

  Lane* Mine() {
    const uint32_t index = EpochThread::Index();
    if (index >= kLanes) return nullptr;
    Lane* lane = lanes_[index].load(std::memory_order_relaxed);
    return lane != nullptr ? lane : NewLane(index);
  }
  // Only this thread makes the lane of its index.
  Lane* NewLane(uint32_t index) {
    Lane* lane = new (std::nothrow) Lane;
    lanes_[index].store(lane, std::memory_order_release);
    return lane;
  }

  std::array<std::atomic<Lane*>, kLanes> lanes_{};
  Lane common_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TABLES_LANE_COUNTERS_H_
