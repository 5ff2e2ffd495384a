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

// Every 2M page of a big guest, its tables warm or not.
Trial BigGuestTrial(Effort effort) {
  const GfnRange guest{Gfn(0), Pick(effort, 4096, 16) * kFramesOfGiB};
  const Frames frames = FramesOf(guest, Order::kSequential, kFramesOf2M);
  auto space =
      std::make_shared<BenchSpace>(BenchSpaceOptions{.frames = guest.count, .largest = Level::k2M});
  Trial trial;
  trial.measured = [=] {
    uint64_t fixed = 0;
    const double ns = EachNs(frames.size(), [&] { fixed = space->FaultEach(frames); });
    Require(fixed == frames.size(), "a fault for every 2M page");
    Require((*space)->stats().leaves[0][1] == frames.size(), "2M leaves");
    space->Zap(guest);
    return ns;
  };
  trial.floor = CompositeFloor<Level::k2M>(guest.count, 1, frames);
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
  rows.push_back({"fault_2m_4tib", "ns/leaf", Target::Report(), BigGuestTrial});
}

}  // namespace twinroot::bench
