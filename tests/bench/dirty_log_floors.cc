// The bare work of the dirty log and of splitting large pages: words, bitmaps and fills, without
// books, locks or flushes.
#include <atomic>
#include <bit>
#include <memory>
#include <vector>

#include "tests/bench/clock.h"
#include "tests/bench/floor_tables.h"
#include "tests/bench/frames.h"
#include "tests/bench/row.h"

namespace twinroot::bench {
namespace {

using mmu::Gfn;
using mmu::GfnRange;
using mmu::Level;

constexpr double kUsInNs = 1000;

GfnRange GuestOf(Effort effort) { return {Gfn(0), Pick(effort, kFramesOfGiB, 64 * kFramesOf2M)}; }
double PagesIn(GfnRange range) { return static_cast<double>(range.count); }

// Figures are given for 1 GiB, whatever part of it a quick round does.
double UsForGiB(double ns_of_all, GfnRange guest) {
  return ns_of_all / kUsInNs * static_cast<double>(kFramesOfGiB) / PagesIn(guest);
}

// Mapped, writable leaves of the guest, and a dirty bitmap.
class LoggedGuest {
 public:
  explicit LoggedGuest(GfnRange guest)
      : guest_(guest), tables_(guest, Level::k4K), bitmap_(guest.count / kBits) {
    for (uint64_t i = 0; i < guest_.count; ++i) {
      tables_.Slot(guest_.first + i).store(FloorTables::LeafOf(guest_.first + i));
    }
  }

  double WriteProtectNs() {
    const double ns = CpuNs(1, [&] {
      for (uint64_t i = 0; i < guest_.count; i += kFramesOf2M) {
        FloorTables::Word* const leaves = &tables_.Slot(guest_.first + i);
        for (uint64_t at = 0; at < kFramesOf2M; ++at) {
          leaves[at].fetch_and(~FloorTables::kWritable, std::memory_order_acq_rel);
        }
      }
    });
    for (uint64_t i = 0; i < guest_.count; ++i) {
      FloorTables::Word& word = tables_.Slot(guest_.first + i);
      Require((word.load() & FloorTables::kWritable) == 0, "the floor's write protection");
      word.fetch_or(FloorTables::kWritable);
    }
    return ns;
  }

  // Every `step`-th page was written to (0: none): takes the bitmap and protects what it names.
  double HarvestNs(uint64_t step) {
    uint64_t dirty = 0;
    for (uint64_t i = 0; step != 0 && i < guest_.count; i += step, ++dirty) {
      bitmap_[i / kBits].fetch_or(uint64_t{1} << i % kBits);
      tables_.Slot(guest_.first + i).fetch_or(FloorTables::kWritable);
    }
    uint64_t harvested = 0;
    const double ns = CpuNs(1, [&] {
      for (size_t i = 0; i < bitmap_.size(); ++i) {
        if (bitmap_[i].load(std::memory_order_relaxed) == 0) continue;
        FloorTables::Word* const leaves = &tables_.Slot(guest_.first + i * kBits);
        for (uint64_t bits = bitmap_[i].exchange(0); bits != 0; bits &= bits - 1) {
          leaves[std::countr_zero(bits)].fetch_and(~FloorTables::kWritable,
                                                   std::memory_order_acq_rel);
          ++harvested;
        }
      }
    });
    Require(harvested == dirty, "the floor's harvest of every dirty page");
    return ns;
  }

 private:
  static constexpr uint64_t kBits = 64;
  const GfnRange guest_;
  FloorTables tables_;
  std::vector<std::atomic<uint64_t>> bitmap_;
};

using EightWords = uint64_t __attribute__((vector_size(64)));

// The same loop for processors with and without AVX-512: the floor is what the machine can do.
[[gnu::always_inline]] inline void FillBy(std::byte* page, uint64_t first, uint64_t step) {
  constexpr uint64_t kLanes = sizeof(EightWords) / sizeof(uint64_t);
  EightWords next{};
  for (uint64_t lane = 0; lane < kLanes; ++lane) next[lane] = first + lane * step;
  auto* const words = reinterpret_cast<EightWords*>(page);
  for (uint64_t i = 0; i < mmu::kEntriesPerTable / kLanes; ++i) {
    words[i] = next;
    next += kLanes * step;
  }
}
[[gnu::target("avx512f")]] void FillAvx512(std::byte* page, uint64_t first, uint64_t step) {
  FillBy(page, first, step);
}
void FillPlain(std::byte* page, uint64_t first, uint64_t step) { FillBy(page, first, step); }
void Fill(std::byte* page, uint64_t first, uint64_t step) {
  static const bool avx512 = __builtin_cpu_supports("avx512f");
  avx512 ? FillAvx512(page, first, step) : FillPlain(page, first, step);
}

// Fills one table from a large leaf and puts it in the leaf's place.
void Split(FloorTables::Word& slot, std::byte* page, uint64_t step) {
  uint64_t large = slot.load(std::memory_order_acquire);
  Fill(page, large, step);
  slot.compare_exchange_strong(large, reinterpret_cast<uint64_t>(page) | FloorTables::kPresent,
                               std::memory_order_acq_rel);
}

enum class Caches : uint8_t { kCold, kHot };

Trial SplitTrial(Effort effort, Caches caches) {
  // Hot: as many tables as a first-level cache holds, again and again.
  const uint64_t count = Pick(effort, 16384, 512);
  const uint64_t pages = caches == Caches::kCold ? count : 4;
  const GfnRange guest{Gfn(0), count * kFramesOf2M};
  auto tables = std::make_shared<FloorTables>(guest, Level::k2M);
  auto arena = std::make_shared<Arena>(pages);
  Trial trial;
  trial.measured = [=] {
    for (uint64_t i = 0; i < count; ++i) {
      const Gfn gfn(i * kFramesOf2M);
      tables->Slot<Level::k2M>(gfn).store(FloorTables::LeafOf(gfn));
    }
    if (caches == Caches::kCold) arena->Evict();
    return CpuNs(count, [&] {
      for (uint64_t i = 0; i < count; ++i) {
        Split(tables->Slot<Level::k2M>(Gfn(i * kFramesOf2M)),
              arena->bytes() + i % pages * mmu::kPageSize, mmu::kPageSize);
      }
    });
  };
  return trial;
}

// 1G leaves down to 4K; in milliseconds for all.
Trial SplitGuestTrial(Effort effort) {
  const uint64_t count = Pick(effort, 96, 2);
  const uint64_t tables_of_one = 1 + mmu::kEntriesPerTable;
  const GfnRange guest{Gfn(0), count * kFramesOfGiB};
  auto tables = std::make_shared<FloorTables>(guest, Level::k1G);
  auto arena = std::make_shared<Arena>(count * tables_of_one);
  Trial trial;
  trial.measured = [=] {
    for (uint64_t i = 0; i < count; ++i) {
      const Gfn gfn(i * kFramesOfGiB);
      tables->Slot<Level::k1G>(gfn).store(FloorTables::LeafOf(gfn));
    }
    arena->Evict();
    const double ns = CpuNs(1, [&] {
      std::byte* page = arena->bytes();
      for (uint64_t i = 0; i < count; ++i) {
        FloorTables::Word& slot = tables->Slot<Level::k1G>(Gfn(i * kFramesOfGiB));
        Split(slot, page, mmu::BytesPerEntry(Level::k2M));
        page += mmu::kPageSize;
        FloorTables::Word* const middle = FloorTables::Below(slot.load());
        for (uint64_t at = 0; at < mmu::kEntriesPerTable; ++at, page += mmu::kPageSize) {
          Split(middle[at], page, mmu::kPageSize);
        }
      }
    });
    constexpr double kMsInNs = 1e6;
    return ns / kMsInNs;
  };
  return trial;
}

// Every table of 4K leaves gives way to one 2M leaf.
Trial CollapseTrial(Effort effort) {
  const GfnRange guest{Gfn(0), Pick(effort, 256, 4) * kFramesOfGiB};
  auto tables = std::make_shared<FloorTables>(guest, Level::k2M);
  Trial trial;
  trial.measured = [=] {
    const uint64_t count = guest.count / kFramesOf2M;
    for (uint64_t i = 0; i < count; ++i) {
      tables->Slot<Level::k2M>(Gfn(i * kFramesOf2M)).store(FloorTables::kPresent);
    }
    return CpuNs(count, [&] {
      for (uint64_t i = 0; i < count; ++i) {
        const Gfn gfn(i * kFramesOf2M);
        FloorTables::Word& slot = tables->Slot<Level::k2M>(gfn);
        uint64_t link = slot.load(std::memory_order_acquire);
        slot.compare_exchange_strong(link, FloorTables::LeafOf(gfn), std::memory_order_acq_rel);
      }
    });
  };
  return trial;
}

Trial LogTrial(Effort effort, const std::function<double(LoggedGuest&)>& ns) {
  const GfnRange guest = GuestOf(effort);
  auto logged = std::make_shared<LoggedGuest>(guest);
  Trial trial;
  trial.measured = [=] { return UsForGiB(ns(*logged), guest); };
  return trial;
}

Row HarvestRow(const char* name, uint64_t step) {
  return {name, "us/GiB", Target::Report(), [step](Effort e) {
            return LogTrial(e, [step](LoggedGuest& guest) { return guest.HarvestNs(step); });
          }};
}

}  // namespace

void AddDirtyLogFloors(Rows& rows) {
  rows.push_back({"write_protect_1gib", "us/GiB", Target::Report(), [](Effort e) {
                    return LogTrial(e, [](LoggedGuest& guest) { return guest.WriteProtectNs(); });
                  }});
  rows.push_back(HarvestRow("harvest_0_percent", 0));
  rows.push_back(HarvestRow("harvest_1_percent", 100));
  rows.push_back(HarvestRow("harvest_100_percent", 1));
  rows.push_back({"split_2m_cold", "ns/table", Target::Report(),
                  [](Effort e) { return SplitTrial(e, Caches::kCold); }});
  rows.push_back({"split_2m_hot", "ns/table", Target::Report(),
                  [](Effort e) { return SplitTrial(e, Caches::kHot); }});
  rows.push_back({"split_96gib_of_1g", "ms", Target::Report(), SplitGuestTrial});
  rows.push_back({"collapse_to_2m", "ns/leaf", Target::Report(), CollapseTrial});
}

}  // namespace twinroot::bench
