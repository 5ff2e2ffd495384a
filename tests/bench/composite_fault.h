// The floor of a whole warm fault: every part that a fault cannot do without, written straight
// down. Epoch guard, alias split, reserved bits, sequence, memslot, attribute, level, sequence
// again, walk and CAS, a count of this thread's own. No page source, no statuses, no errors.
#ifndef TWINROOT_TESTS_BENCH_COMPOSITE_FAULT_H_
#define TWINROOT_TESTS_BENCH_COMPOSITE_FAULT_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "mmu/tables/epoch.h"
#include "tests/bench/bench_space.h"
#include "tests/bench/floor_tables.h"
#include "tests/bench/frames.h"

namespace twinroot::bench {

template <mmu::Level kLeaves = mmu::Level::k4K>
class CompositeFault {
 public:
  CompositeFault(uint64_t frames, uint64_t slots) : tables_({mmu::Gfn(0), frames}, kLeaves) {
    const uint64_t each = frames / slots;
    for (uint64_t i = 0; i < slots; ++i) {
      slots_.push_back({{mmu::Gfn(i * each), each}, PrivatePfn(mmu::Gfn(i * each))});
    }
    // As the attributes of a VM that never converted: uniform words, one level down.
    for (auto& word : attributes_) word.store(kUniformPrivate);
  }

  // True: it mapped the page.
  bool Handle(mmu::Gpa raw) {
    if ((raw.value & kReserved) != 0) return false;
    const bool shared = (raw.value & kShared) != 0;
    const mmu::Gfn gfn((raw.value & ~kShared) / mmu::kPageSize);
    const mmu::EpochGuard guard;
    const std::atomic<uint64_t>& ended = shards_[gfn.value / kFramesOfGiB % kShards].ended;
    const uint64_t snapshot = ended.load(std::memory_order_acquire);
    if (under_way_.load(std::memory_order_acquire)) return false;
    const auto slot = std::upper_bound(slots_.begin(), slots_.end(), gfn,
                                       [](mmu::Gfn g, const Slot& s) { return g < s.range.end(); });
    if (slot == slots_.end() || !slot->range.Contains(gfn)) return false;
    const uint64_t attribute =
        attributes_[gfn.value / mmu::FramesPerEntry(mmu::Level::k512G) % mmu::kEntriesPerTable]
            .load(std::memory_order_acquire);
    if ((attribute == kUniformPrivate) == shared) return false;
    const mmu::Pfn pfn = slot->first + (gfn - slot->range.first);
    if (LevelOf(*slot, gfn, pfn, attribute) != kLeaves) return false;
    FloorTables::Word& word = tables_.Slot<kLeaves>(gfn);
    if (under_way_.load(std::memory_order_acquire) ||
        ended.load(std::memory_order_acquire) != snapshot) {
      return false;
    }
    if (!FloorTables::Map(word, pfn.value * mmu::kPageSize | FloorTables::kPresent)) return false;
    std::atomic<uint64_t>& count = counts_[mmu::EpochThread::Index() % kShards].fixed;
    count.store(count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    return true;
  }

  uint64_t HandleEach(const Frames& frames) {
    return HowMany(frames, [this](mmu::Gfn gfn) {
      return Handle(BenchSpace::RawGpa(gfn, mmu::MemoryKind::kPrivate));
    });
  }
  void UnmapEach(const Frames& frames) {
    for (const mmu::Gfn gfn : frames) FloorTables::Unmap(tables_.Slot<kLeaves>(gfn));
  }

 private:
  static constexpr uint64_t kShared = 64 * kTiB;
  static constexpr uint64_t kReserved = ~(128 * kTiB - 1);
  static constexpr uint64_t kUniformPrivate = 1;
  static constexpr size_t kShards = 64;
  struct alignas(64) Shard {
    std::atomic<uint64_t> ended{0};
  };
  struct alignas(64) Count {
    std::atomic<uint64_t> fixed{0};
  };
  struct Slot {
    mmu::GfnRange range;
    mmu::Pfn first;
  };

  // The largest leaf that slot, alignment and attributes allow, at most kLeaves.
  static mmu::Level LevelOf(const Slot& slot, mmu::Gfn gfn, mmu::Pfn pfn, uint64_t attribute) {
    for (mmu::Level level = mmu::Level::k1G; level > mmu::Level::k4K; level = mmu::Below(level)) {
      const uint64_t frames = mmu::FramesPerEntry(level);
      const mmu::GfnRange leaf{gfn - gfn.value % frames, frames};
      if (level <= kLeaves && slot.range.Contains(leaf) && (gfn.value ^ pfn.value) % frames == 0 &&
          attribute != 0) {
        return level;
      }
    }
    return mmu::Level::k4K;
  }

  FloorTables tables_;
  std::vector<Slot> slots_;
  std::array<std::atomic<uint64_t>, mmu::kEntriesPerTable> attributes_{};
  std::array<Shard, kShards> shards_;
  std::array<Count, kShards> counts_;
  std::atomic<bool> under_way_{false};
};

}  // namespace twinroot::bench

#endif  // TWINROOT_TESTS_BENCH_COMPOSITE_FAULT_H_
