// Rows of the dirty log by write protection. The floors are words and bitmaps, without books, locks
// or flushes.
#include <atomic>
#include <bit>
#include <memory>
#include <vector>

#include "tests/bench/bench_space.h"
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

// Figures are given for 1 GiB, whatever part of it a quick round does.
double UsForGiB(double ns_of_all, GfnRange guest) {
  return ns_of_all / kUsInNs * static_cast<double>(kFramesOfGiB) / static_cast<double>(guest.count);
}

// Mapped, writable leaves of the guest, and a dirty bitmap.
class FloorLog {
 public:
  explicit FloorLog(GfnRange guest)
      : guest_(guest), tables_(guest, Level::k4K), bitmap_(guest.count / kBits) {
    for (uint64_t i = 0; i < guest_.count; ++i) {
      tables_.Slot(guest_.first + i).store(FloorTables::LeafOf(guest_.first + i));
    }
  }

  double WriteProtectNs() {
    const double ns = WallNs(1, [&] {
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

  // After `written` were: takes the bitmap and protects what it names.
  double HarvestNs(const Frames& written) {
    for (const Gfn gfn : written) {
      bitmap_[gfn.value / kBits].fetch_or(uint64_t{1} << gfn.value % kBits);
      tables_.Slot(gfn).fetch_or(FloorTables::kWritable);
    }
    uint64_t harvested = 0;
    const double ns = WallNs(1, [&] {
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
    Require(harvested == written.size(), "the floor's harvest of every dirty page");
    return ns;
  }

 private:
  static constexpr uint64_t kBits = 64;
  const GfnRange guest_;
  FloorTables tables_;
  std::vector<std::atomic<uint64_t>> bitmap_;
};

std::shared_ptr<BenchSpace> MappedSpace(const Frames& all) {
  auto space = std::make_shared<BenchSpace>(BenchSpaceOptions{.frames = all.size()});
  Require(space->FaultEach(all) == all.size(), "a fault for every page");
  return space;
}

// Enabling the log takes W from every leaf; between rounds the log ends, and write faults give W
// back.
Trial WriteProtectTrial(Effort effort) {
  const GfnRange guest = GuestOf(effort);
  const Frames all = FramesOf(guest, Order::kSequential);
  auto space = MappedSpace(all);
  auto floor = std::make_shared<FloorLog>(guest);
  Trial trial;
  trial.measured = [=] {
    const double ns = WallNs(1, [&] { Require((*space)->EnableDirtyLog({}).ok(), "a dirty log"); });
    Require((*space)->DisableDirtyLog().ok(), "the end of the dirty log");
    Require(space->WriteEach(all) == all.size(), "W taken from every page, and given back");
    return UsForGiB(ns, guest);
  };
  trial.floor = [=] { return UsForGiB(floor->WriteProtectNs(), guest); };
  return trial;
}

// Every `step`-th page was written to since the last round (0: none). A harvest waits for faults,
// so the wall clock it is.
Trial HarvestTrial(Effort effort, uint64_t step) {
  const GfnRange guest = GuestOf(effort);
  const Frames all = FramesOf(guest, Order::kSequential);
  const Frames written = step == 0 ? Frames{} : FramesOf(guest, Order::kSequential, step);
  auto space = MappedSpace(all);
  auto floor = std::make_shared<FloorLog>(guest);
  Require((*space)->EnableDirtyLog({}).ok(), "a dirty log");
  Trial trial;
  trial.measured = [=] {
    Require(space->WriteEach(written) == written.size(), "a write fault for every page");
    mmu::DirtyPages pages;
    const double ns = WallNs(1, [&] {
      auto harvest = (*space)->HarvestDirty(guest);
      Require(harvest.ok(), "a harvest");
      pages = *std::move(harvest);
    });
    uint64_t dirty = 0;
    for (const uint64_t word : pages.words) dirty += static_cast<uint64_t>(std::popcount(word));
    Require(dirty == written.size(), "a harvest of every dirty page");
    return UsForGiB(ns, guest);
  };
  trial.floor = [=] { return UsForGiB(floor->HarvestNs(written), guest); };
  return trial;
}

Row HarvestRow(const char* name, uint64_t step) {
  return {name, "us/GiB", Target::Ratio(1.3), [step](Effort e) { return HarvestTrial(e, step); }};
}

// How the log found large pages.
enum class Leaves : uint8_t { kStayLarge, kAreSplit };

// Flushes for each GiB when the log ends over 2M leaves.
Trial DisableTrial(Effort effort, Leaves leaves) {
  const uint64_t gibs = Pick(effort, 256, 2);
  const GfnRange guest{Gfn(0), gibs * kFramesOfGiB};
  const Frames frames = FramesOf(guest, Order::kSequential, kFramesOf2M);
  const size_t small_tables = leaves == Leaves::kAreSplit ? frames.size() : 0;
  auto space = std::make_shared<BenchSpace>(BenchSpaceOptions{
      .frames = guest.count, .largest = Level::k2M, .spare_table_pages = small_tables});
  Require(space->FaultEach(frames) == frames.size(), "a fault for every 2M page");
  Trial trial;
  trial.measured = [=] {
    const auto enabled = (*space)->EnableDirtyLog({.eager_split = leaves == Leaves::kAreSplit});
    Require(enabled.ok() && enabled->split_2m == small_tables, "a dirty log over these leaves");
    const uint64_t before = space->flushes();
    const auto disabled = (*space)->DisableDirtyLog();
    Require(disabled.ok() && disabled->collapsed == small_tables, "large pages again");
    const uint64_t flushes = space->flushes() - before;
    Require((*space)->stats().leaves[0][1] == frames.size(), "2M leaves");
    // Those that stayed are without W still.
    if (leaves == Leaves::kStayLarge) space->WriteEach(frames);
    return static_cast<double>(flushes) / static_cast<double>(gibs);
  };
  return trial;
}

}  // namespace

void AddDirtyLogRows(Rows& rows) {
  rows.push_back({"write_protect_1gib", "us/GiB", Target::Ratio(1.3), WriteProtectTrial});
  rows.push_back(HarvestRow("harvest_0_percent", 0));
  rows.push_back(HarvestRow("harvest_1_percent", 100));
  rows.push_back(HarvestRow("harvest_100_percent", 1));
  rows.push_back({"disable_log_large_flushes", "per GiB", Target::AtMost(1),
                  [](Effort e) { return DisableTrial(e, Leaves::kStayLarge); }});
  rows.push_back({"disable_log_split_flushes", "per GiB", Target::AtMost(1),
                  [](Effort e) { return DisableTrial(e, Leaves::kAreSplit); }});
}

}  // namespace twinroot::bench
