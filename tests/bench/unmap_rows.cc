// Rows of taking 4K leaves away.
#include <memory>

#include "tests/bench/bench_space.h"
#include "tests/bench/clock.h"
#include "tests/bench/engine_tables.h"
#include "tests/bench/floor_tables.h"
#include "tests/bench/frames.h"
#include "tests/bench/row.h"

namespace twinroot::bench {
namespace {

using mmu::Gfn;
using mmu::GfnRange;
using mmu::Level;

enum class Zaps : uint8_t { kEachPage, kWholeRange };

// Fills the floor's slots (not counted), then clears them, each from the root: in turn, or as one
// piece of work.
std::function<double()> UnmapFloor(GfnRange guest, Frames frames, Zaps zaps) {
  auto tables = std::make_shared<FloorTables>(guest, Level::k4K);
  return [tables, zaps, frames = std::move(frames)] {
    for (const Gfn gfn : frames) FloorTables::Map(tables->Slot(gfn), FloorTables::LeafOf(gfn));
    uint64_t unmapped = 0;
    const auto unmap = [&](Gfn gfn) { return FloorTables::Unmap(tables->Slot(gfn)); };
    const double ns = zaps == Zaps::kEachPage
                          ? EachNs(frames.size(), [&] { unmapped = HowMany(frames, unmap); })
                          : CpuNs(frames.size(), [&] {
                              for (const Gfn gfn : frames) unmapped += unmap(gfn);
                            });
    Require(unmapped == frames.size(), "the floor's unmap of every page");
    return ns;
  };
}

Trial UnmapTrial(Effort effort, Zaps zaps) {
  const GfnRange guest{Gfn(0), Pick(effort, kFramesOfGiB, 64 * kFramesOf2M)};
  const Frames frames = FramesOf(guest, Order::kSequential);
  auto engine = std::make_shared<EngineTables>(guest.count / kFramesOf2M + 8);
  Trial trial;
  trial.measured = [=] {
    Require(engine->MapEach(frames) == guest.count, "a map of every page");
    uint64_t zapped = 0;
    const double ns = WallNs(guest.count, [&] {
      zapped = zaps == Zaps::kEachPage ? engine->ZapEach(frames) : engine->ZapRange(guest);
    });
    Require(zapped == guest.count, "a zap of every page");
    return zaps == Zaps::kEachPage ? ns - PaceNs() : ns;
  };
  trial.floor = UnmapFloor(guest, frames, zaps);
  return trial;
}

// The whole call of the facade, turn and flush included, for one page at a time.
Trial ZapCallTrial(Effort effort) {
  const GfnRange guest{Gfn(0), Pick(effort, 32, 2) * kFramesOf2M};
  const Frames frames = FramesOf(guest, Order::kSequential, 16);
  auto space = std::make_shared<BenchSpace>(BenchSpaceOptions{.frames = guest.count});
  Trial trial;
  trial.measured = [=] {
    Require(space->FaultEach(frames) == frames.size(), "a fault for every page");
    return WallNs(frames.size(), [&] {
      for (const Gfn gfn : frames) space->Zap({gfn, 1});
    });
  };
  trial.floor = UnmapFloor(guest, frames, Zaps::kEachPage);
  return trial;
}

}  // namespace

void AddUnmapRows(Rows& rows) {
  rows.push_back({"unmap_4k_each", "ns/page", Target::Ratio(1.3),
                  [](Effort e) { return UnmapTrial(e, Zaps::kEachPage); }});
  rows.push_back({"unmap_4k_range", "ns/page", Target::Ratio(1.3),
                  [](Effort e) { return UnmapTrial(e, Zaps::kWholeRange); }});
  rows.push_back({"zap_call_one_page", "ns", Target::Report(), ZapCallTrial});
}

}  // namespace twinroot::bench
