// Rows of a whole fault on one thread.
#include <memory>

#include "tests/bench/bench_space.h"
#include "tests/bench/clock.h"
#include "tests/bench/composite_fault.h"
#include "tests/bench/frames.h"
#include "tests/bench/row.h"

namespace twinroot::bench {
namespace {

using mmu::Gfn;
using mmu::GfnRange;
using mmu::Level;

template <Level kLeaves>
std::function<double()> CompositeFloor(uint64_t frames_of_guest, uint64_t slots, Frames frames) {
  auto composite = std::make_shared<CompositeFault<kLeaves>>(frames_of_guest, slots);
  return [composite, frames = std::move(frames)] {
    uint64_t fixed = 0;
    const double ns = EachNs(frames.size(), [&] { fixed = composite->HandleEach(frames); });
    Require(fixed == frames.size(), "the floor's fault for every page");
    composite->UnmapEach(frames);
    return ns;
  };
}

// Faults on unmapped pages whose leaf table stands.
Trial WarmTrial(Effort effort, Order order, uint64_t slots) {
  const GfnRange guest{Gfn(0), Pick(effort, kFramesOfGiB, 64 * kFramesOf2M)};
  const Frames frames = FramesBesideTheFirst(guest, order);
  auto space =
      std::make_shared<BenchSpace>(BenchSpaceOptions{.frames = guest.count, .slots = slots});
  const Frames first = FramesOf(guest, Order::kSequential, kFramesOf2M);
  Require(space->FaultEach(first) == first.size(), "a fault for each leaf table");
  Trial trial;
  trial.measured = [=] {
    uint64_t fixed = 0;
    const double ns = EachNs(frames.size(), [&] { fixed = space->FaultEach(frames); });
    Require(fixed == frames.size(), "a fault for every page");
    space->ZapBesideTheFirst(guest);
    return ns;
  };
  trial.floor = CompositeFloor<Level::k4K>(guest.count, slots, frames);
  return trial;
}

// Every large page of a big guest, its tables warm or not.
template <Level kLeaves>
Trial BigGuestTrial(Effort effort) {
  const GfnRange guest{Gfn(0), Pick(effort, 4096, 16) * kFramesOfGiB};
  const Frames frames = FramesOf(guest, Order::kSequential, mmu::FramesPerEntry(kLeaves));
  auto space =
      std::make_shared<BenchSpace>(BenchSpaceOptions{.frames = guest.count, .largest = kLeaves});
  Trial trial;
  trial.measured = [=] {
    uint64_t fixed = 0;
    const double ns = EachNs(frames.size(), [&] { fixed = space->FaultEach(frames); });
    Require(fixed == frames.size(), "a fault for every large page");
    Require((*space)->stats().leaves[0][static_cast<int>(kLeaves) - 1] == frames.size(),
            "leaves of that level");
    space->Zap(guest);
    return ns;
  };
  trial.floor = CompositeFloor<kLeaves>(guest.count, 1, frames);
  return trial;
}

// 4 TiB of leaves of every size, some thousand faults on each size in random order. The guest keeps
// one leaf in each table.
Trial MixedGuestTrial(Effort) {
  struct Floors {
    explicit Floors(uint64_t frames)
        : small(MixedPages::kSmallFrames, 1), middle(MixedPages::kMiddleEnd, 1), large(frames, 1) {}
    bool Handle(Gfn gfn) {
      const mmu::Gpa raw = BenchSpace::RawGpa(gfn, mmu::MemoryKind::kPrivate);
      switch (MixedPages::LevelOf(gfn)) {
        case Level::k4K:
          return small.Handle(raw);
        case Level::k2M:
          return middle.Handle(raw);
        default:
          return large.Handle(raw);
      }
    }
    CompositeFault<Level::k4K> small;
    CompositeFault<Level::k2M> middle;
    CompositeFault<Level::k1G> large;
  };
  const GfnRange guest{Gfn(0), 4096 * kFramesOfGiB};
  Frames kept, frames;
  const auto add = [&](uint64_t first, uint64_t end, uint64_t leaf, uint64_t step) {
    for (uint64_t i = first; i < end; i += step) {
      const bool first_of_table = i % (leaf * mmu::kEntriesPerTable) == 0;
      (first_of_table ? kept : frames).push_back(Gfn(i));
    }
  };
  add(0, MixedPages::kSmallFrames, 1, 128);
  add(MixedPages::kSmallFrames, MixedPages::kMiddleEnd, kFramesOf2M, 64 * kFramesOf2M);
  add(MixedPages::kMiddleEnd, guest.count, kFramesOfGiB, kFramesOfGiB);
  Shuffle(frames);
  // A table for each 2M of 4K leaves, for each GiB of 2M leaves, for each 512 GiB, and the roots.
  const size_t tables =
      MixedPages::kSmallFrames / kFramesOf2M + MixedPages::kMiddleEnd / kFramesOfGiB + 32;
  auto space = std::make_shared<BenchSpace>(
      BenchSpaceOptions{.frames = guest.count, .mixed = true, .table_pages = tables});
  auto floors = std::make_shared<Floors>(guest.count);
  Require(space->FaultEach(kept) == kept.size(), "a fault for each table");
  uint64_t of_level[3] = {};
  for (const Frames* some : {&kept, &frames}) {
    for (const Gfn gfn : *some) ++of_level[static_cast<int>(MixedPages::LevelOf(gfn)) - 1];
  }
  const mmu::LeafTally expected{{{of_level[0], of_level[1], of_level[2]}, {}}};
  Trial trial;
  trial.measured = [=] {
    uint64_t fixed = 0;
    const double ns = EachNs(frames.size(), [&] { fixed = space->FaultEach(frames); });
    Require(fixed == frames.size(), "a fault for every page");
    const mmu::AddressSpaceStats stats = (*space)->stats();
    for (int level = 0; level < 3; ++level) {
      Require(stats.leaves[0][level] == expected.leaves[0][level], "leaves of every size");
    }
    for (const Gfn gfn : frames) space->Zap({gfn, 1});
    return ns;
  };
  trial.floor = [=] {
    uint64_t fixed = 0;
    const double ns = EachNs(frames.size(), [&] {
      fixed = HowMany(frames, [&](Gfn gfn) { return floors->Handle(gfn); });
    });
    Require(fixed == frames.size(), "the floor's fault for every page");
    for (const Gfn gfn : frames) {
      switch (MixedPages::LevelOf(gfn)) {
        case Level::k4K:
          floors->small.UnmapEach({gfn});
          break;
        case Level::k2M:
          floors->middle.UnmapEach({gfn});
          break;
        default:
          floors->large.UnmapEach({gfn});
      }
    }
    return ns;
  };
  return trial;
}

}  // namespace

void AddFaultRows(Rows& rows) {
  rows.push_back({"fault_4k_sequential", "ns/page", Target::Ratio(1.25),
                  [](Effort e) { return WarmTrial(e, Order::kSequential, 1); }});
  rows.push_back({"fault_4k_random", "ns/page", Target::Ratio(1.25),
                  [](Effort e) { return WarmTrial(e, Order::kRandom, 1); }});
  rows.push_back({"fault_4k_256_slots", "ns/page", Target::Ratio(1.25),
                  [](Effort e) { return WarmTrial(e, Order::kRandom, 256); }});
  rows.push_back({"fault_2m_4tib", "ns/leaf", Target::Report(), BigGuestTrial<Level::k2M>});
  rows.push_back({"fault_1g_4tib", "ns/leaf", Target::Report(), BigGuestTrial<Level::k1G>});
  rows.push_back({"fault_mixed_4tib", "ns/leaf", Target::Report(), MixedGuestTrial});
}

}  // namespace twinroot::bench
