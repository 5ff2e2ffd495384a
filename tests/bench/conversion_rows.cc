// Rows of converting many scattered mapped pages in one call.
#include <memory>

#include "tests/bench/bench_space.h"
#include "tests/bench/clock.h"
#include "tests/bench/floor_attributes.h"
#include "tests/bench/floor_tables.h"
#include "tests/bench/frames.h"
#include "tests/bench/row.h"

namespace twinroot::bench {
namespace {

using mmu::Gfn;
using mmu::GfnRange;
using mmu::Level;
using mmu::MemoryKind;

constexpr uint64_t kStep = 101;  // pages from one conversion to the next: five in each leaf table

// 10,000 pages of a guest, as 10,000 ranges of one call, in ascending order. Every round converts
// them all to the other kind, mapped when it starts.
class Batch {
 public:
  explicit Batch(Effort effort)
      : frames_(FramesOf({Gfn(0), kStep * Pick(effort, 10'000, 500)}, Order::kSequential, kStep)),
        guest_{Gfn(0), (frames_.back().value / kFramesOfGiB + 1) * kFramesOfGiB},
        space_({.frames = guest_.count, .table_pages = 3 * guest_.count / kFramesOf2M + 64}),
        floor_tables_(guest_, Level::k4K) {
    for (const Gfn gfn : frames_) ranges_.push_back({gfn, 1});
  }

  // Nanoseconds for each conversion; how many flushes it took goes to `flushes`.
  double Convert(uint64_t& flushes) {
    Require(space_.FaultEach(frames_, kind_) == frames_.size(), "a fault for every page");
    const uint64_t before = space_.flushes();
    uint64_t converted = 0;
    const double ns =
        WallNs(frames_.size(), [&] { converted = space_.Convert(ranges_, Other(kind_)); });
    Require(converted == frames_.size(), "a conversion of every page");
    kind_ = Other(kind_);
    flushes = space_.flushes() - before;
    return ns;
  }

  double Floor() {
    for (const Gfn gfn : frames_) {
      FloorTables::Map(floor_tables_.Slot(gfn), FloorTables::LeafOf(gfn));
    }
    floor_kind_ = Other(floor_kind_);
    uint64_t unmapped = 0;
    const double ns = WallNs(frames_.size(), [&] {
      for (const Gfn gfn : frames_) unmapped += FloorTables::Unmap(floor_tables_.Slot(gfn));
      for (const Gfn gfn : frames_) floor_runs_.Set({gfn, 1}, floor_kind_);
    });
    Require(unmapped == frames_.size(), "the floor's unmap of every page");
    return ns;
  }

 private:
  const Frames frames_;
  const GfnRange guest_;
  std::vector<GfnRange> ranges_;
  BenchSpace space_;
  MemoryKind kind_ = MemoryKind::kPrivate;
  FloorTables floor_tables_;
  RunTree floor_runs_{MemoryKind::kPrivate};
  MemoryKind floor_kind_ = MemoryKind::kPrivate;
};

// There and back: the two ways cost differently.
Trial TimeTrial(Effort effort) {
  auto batch = std::make_shared<Batch>(effort);
  Trial trial;
  trial.measured = [=] {
    uint64_t flushes = 0;
    return (batch->Convert(flushes) + batch->Convert(flushes)) / 2;
  };
  trial.floor = [=] { return (batch->Floor() + batch->Floor()) / 2; };
  return trial;
}

Trial FlushTrial(Effort effort) {
  auto batch = std::make_shared<Batch>(effort);
  return {.measured =
              [=] {
                uint64_t flushes = 0;
                batch->Convert(flushes);
                return static_cast<double>(flushes);
              },
          .floor = {},
          .note = {}};
}

}  // namespace

void AddConversionRows(Rows& rows) {
  rows.push_back({"convert_scattered", "ns/page", Target::Ratio(2), TimeTrial});
  rows.push_back({"convert_scattered_flushes", "flushes", Target::AtMost(1), FlushTrial});
}

}  // namespace twinroot::bench
