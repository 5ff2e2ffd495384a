// Rows of splitting large pages and of making them large again.
#include <memory>

#include "tests/bench/bench_space.h"
#include "tests/bench/clock.h"
#include "tests/bench/floor_split.h"
#include "tests/bench/floor_tables.h"
#include "tests/bench/frames.h"
#include "tests/bench/row.h"

namespace twinroot::bench {
namespace {

using mmu::Gfn;
using mmu::GfnRange;
using mmu::Level;

constexpr double kUsInNs = 1000;
constexpr double kMsInNs = 1e6;

// Whether the pages that become tables are in any cache. Hot: they were tables just before.
enum class Caches : uint8_t { kCold, kHot };

// A guest of leaves of one level that a round splits, and gets back.
class LargeGuest {
 public:
  // `new_tables`: as many as a split of everything takes.
  LargeGuest(uint64_t gibs, Level leaves, size_t new_tables)
      : guest_{Gfn(0), gibs * kFramesOfGiB},
        frames_(FramesOf(guest_, Order::kSequential, mmu::FramesPerEntry(leaves))),
        new_tables_(new_tables),
        space_({.frames = guest_.count, .largest = leaves, .spare_table_pages = new_tables}) {
    MapAgain();
  }

  GfnRange range() const { return guest_; }

  double SplitNs(Level target, Caches caches) {
    if (caches == Caches::kCold) space_.EvictTables();
    uint64_t split = 0;
    const double ns = CpuNs(1, [&] {
      const auto done = space_->SplitPages(guest_, target);
      Require(done.ok() && done->kept == 0, "a split");
      split = done->split_1g + done->split_2m;
    });
    Require(split == new_tables_, "a split of every leaf");
    space_.Zap(guest_);
    MapAgain();
    return ns;
  }

  double CollapseNs() {
    Require(space_->SplitPages(guest_, Level::k4K).ok(), "a split");
    uint64_t collapsed = 0;
    const double ns = WallNs(1, [&] {
      const auto done = space_->RecoverPages(guest_);
      Require(done.ok(), "large pages again");
      collapsed = done->collapsed;
    });
    Require(collapsed == frames_.size(), "a large page for every table");
    return ns;
  }

 private:
  void MapAgain() {
    Require(space_.FaultEach(frames_) == frames_.size(), "a fault for every large page");
  }

  const GfnRange guest_;
  const Frames frames_;
  const size_t new_tables_;
  BenchSpace space_;
};

// The same of plain words: 2M leaves, each beside the page that becomes its table.
class FloorGuest {
 public:
  explicit FloorGuest(uint64_t gibs)
      : guest_{Gfn(0), gibs * kFramesOfGiB},
        tables_(guest_, Level::k2M),
        pages_(guest_.count / kFramesOf2M) {}

  double SplitNs(Caches caches) {
    MapAgain();
    if (caches == Caches::kCold) pages_.Evict();
    return CpuNs(1, [&] { Split(); });
  }

  // Looks for A and D bits in every table, and puts one leaf into its place.
  double CollapseNs() {
    MapAgain();
    Split();
    return WallNs(1, [&] {
      for (uint64_t i = 0; i < pages_.pages(); ++i) {
        const Gfn gfn(i * kFramesOf2M);
        FloorTables::Word& slot = tables_.Slot<Level::k2M>(gfn);
        uint64_t link = slot.load(std::memory_order_acquire);
        const FloorTables::Word* const below = FloorTables::Below(link);
        uint64_t dirty = 0;
        for (uint64_t at = 0; at < mmu::kEntriesPerTable; ++at) {
          dirty |= below[at].load(std::memory_order_relaxed) & FloorTables::kDirty;
        }
        slot.compare_exchange_strong(link, FloorTables::LeafOf(gfn) | dirty,
                                     std::memory_order_acq_rel);
      }
    });
  }

 private:
  void MapAgain() {
    for (uint64_t i = 0; i < guest_.count; i += kFramesOf2M) {
      tables_.Slot<Level::k2M>(Gfn(i)).store(FloorTables::LeafOf(Gfn(i)));
    }
  }
  void Split() {
    std::byte* page = pages_.bytes();
    for (uint64_t i = 0; i < guest_.count; i += kFramesOf2M, page += mmu::kPageSize) {
      FloorSplit::Split(tables_.Slot<Level::k2M>(Gfn(i)), page, mmu::kPageSize);
    }
  }

  const GfnRange guest_;
  FloorTables tables_;
  Arena pages_;
};

constexpr uint64_t kTablesOfGiB = kFramesOfGiB / kFramesOf2M;

// All of `gibs`; a figure is nanoseconds over `unit_ns`.
Trial SplitTrial(uint64_t gibs, Caches caches, double unit_ns) {
  auto guest = std::make_shared<LargeGuest>(gibs, Level::k2M, gibs * kTablesOfGiB);
  auto floor = std::make_shared<FloorGuest>(gibs);
  Trial trial;
  trial.measured = [=] { return guest->SplitNs(Level::k4K, caches) / unit_ns; };
  trial.floor = [=] { return floor->SplitNs(caches) / unit_ns; };
  return trial;
}

Trial SplitTableTrial(Effort effort, Caches caches) {
  const uint64_t gibs = Pick(effort, 16, 1);
  return SplitTrial(gibs, caches, static_cast<double>(gibs * kTablesOfGiB));
}

// 1G leaves, down to `target`, cold; in milliseconds for all.
Trial SplitGuestTrial(Effort effort, Level target) {
  const uint64_t count = Pick(effort, 96, 1);
  const uint64_t tables_of_one = target == Level::k4K ? 1 + mmu::kEntriesPerTable : 1;
  auto guest = std::make_shared<LargeGuest>(count, Level::k1G, count * tables_of_one);
  auto tables = std::make_shared<FloorTables>(guest->range(), Level::k1G);
  auto arena = std::make_shared<Arena>(count * tables_of_one);
  Trial trial;
  trial.measured = [=] { return guest->SplitNs(target, Caches::kCold) / kMsInNs; };
  trial.floor = [=] {
    for (uint64_t i = 0; i < count; ++i) {
      const Gfn gfn(i * kFramesOfGiB);
      tables->Slot<Level::k1G>(gfn).store(FloorTables::LeafOf(gfn));
    }
    arena->Evict();
    const double ns = CpuNs(1, [&] {
      std::byte* page = arena->bytes();
      for (uint64_t i = 0; i < count; ++i) {
        FloorTables::Word& slot = tables->Slot<Level::k1G>(Gfn(i * kFramesOfGiB));
        FloorSplit::Split(slot, page, mmu::BytesPerEntry(Level::k2M));
        page += mmu::kPageSize;
        if (target == Level::k2M) continue;
        FloorTables::Word* const middle = FloorTables::Below(slot.load());
        for (uint64_t at = 0; at < mmu::kEntriesPerTable; ++at, page += mmu::kPageSize) {
          FloorSplit::Split(middle[at], page, mmu::kPageSize);
        }
      }
    });
    return ns / kMsInNs;
  };
  return trial;
}

// Every table of 4K leaves gives way to one 2M leaf.
Trial CollapseTrial(Effort effort) {
  const uint64_t gibs = Pick(effort, 16, 1);
  const auto leaves = static_cast<double>(gibs * kTablesOfGiB);
  auto guest = std::make_shared<LargeGuest>(gibs, Level::k2M, gibs * kTablesOfGiB);
  auto floor = std::make_shared<FloorGuest>(gibs);
  Trial trial;
  trial.measured = [=] { return guest->CollapseNs() / leaves; };
  trial.floor = [=] { return floor->CollapseNs() / leaves; };
  return trial;
}

}  // namespace

void AddSplitRows(Rows& rows) {
  rows.push_back({"split_2m_cold", "ns/table", Target::Ratio(1.25),
                  [](Effort e) { return SplitTableTrial(e, Caches::kCold); }});
  rows.push_back({"split_2m_hot", "ns/table", Target::Report(),
                  [](Effort) { return SplitTrial(1, Caches::kHot, kTablesOfGiB); }});
  rows.push_back({"split_1gib_of_2m", "us/GiB", Target::AtMost(100),
                  [](Effort) { return SplitTrial(1, Caches::kCold, kUsInNs); }});
  rows.push_back({"split_96gib_1g_to_2m", "ms", Target::AtMost(15),
                  [](Effort e) { return SplitGuestTrial(e, Level::k2M); }});
  rows.push_back({"split_96gib_1g_to_4k", "ms", Target::AtMost(15),
                  [](Effort e) { return SplitGuestTrial(e, Level::k4K); }});
  rows.push_back({"collapse_to_2m", "ns/leaf", Target::Report(), CollapseTrial});
}

}  // namespace twinroot::bench
