// Rows of two threads: what they cost each other.
#include <algorithm>
#include <array>
#include <atomic>
#include <limits>
#include <memory>
#include <string>
#include <thread>

#include "mmu/tables/epoch.h"
#include "tests/bench/bench_space.h"
#include "tests/bench/clock.h"
#include "tests/bench/composite_fault.h"
#include "tests/bench/engine_tables.h"
#include "tests/bench/frames.h"
#include "tests/bench/row.h"

namespace twinroot::bench {
namespace {

using mmu::Gfn;
using mmu::GfnRange;

constexpr int kThreads = 2;

// Starts `work(0)` and `work(1)` together; nanoseconds until both are done.
template <typename Work>
double TogetherNs(const Work& work) {
  std::atomic<int> ready{0};
  std::atomic<bool> go{false};
  const auto body = [&](int thread) {
    { const mmu::EpochGuard registers_this_thread; }
    ++ready;
    while (!go.load()) {
    }
    work(thread);
  };
  std::thread other(body, 1);
  { const mmu::EpochGuard registers_this_thread; }
  while (ready.load() != kThreads - 1) std::this_thread::yield();
  const double ns = WallNs(1, [&] {
    go = true;
    work(0);
    other.join();
  });
  return ns;
}

using Halves = std::array<Frames, kThreads>;

// How much sooner two threads are done than one, by the best of each.
class Scaling {
 public:
  void AddOneThread(double ns) { one_ = std::min(one_, ns); }
  void AddTwoThreads(double ns) { two_ = std::min(two_, ns); }
  std::string Words() const { return std::to_string(one_ / two_).substr(0, 4) + "x"; }

 private:
  double one_ = std::numeric_limits<double>::max();
  double two_ = std::numeric_limits<double>::max();
};

// `fault_each(frames)` faults them in and returns how many.
template <typename FaultEach>
double OnTwoThreadsNs(const Halves& halves, const FaultEach& fault_each) {
  std::array<uint64_t, kThreads> fixed{};
  const double ns = TogetherNs([&](int thread) { fixed[thread] = fault_each(halves[thread]); }) /
                        static_cast<double>(halves[0].size() + halves[1].size()) -
                    PaceNs() / kThreads;
  Require(fixed[0] == halves[0].size() && fixed[1] == halves[1].size(),
          "a fault for every page on two threads");
  return ns;
}
template <typename FaultEach>
double OnOneThreadNs(const Halves& halves, const FaultEach& fault_each) {
  const double ns = WallNs(halves[0].size() + halves[1].size(), [&] {
    for (const Frames& frames : halves) {
      Require(fault_each(frames) == frames.size(), "a fault for every page on one thread");
    }
  });
  return ns - PaceNs();
}

// Half of the guest's 2M pages for each thread, in turns. Floor: one thread for all, halved.
Trial FaultTrial(Effort effort) {
  struct State {
    explicit State(GfnRange the_guest)
        : guest(the_guest), space({.frames = guest.count}), composite(guest.count, 1) {}
    const GfnRange guest;
    BenchSpace space;
    CompositeFault<> composite;
    Halves halves;
    Scaling engine, bare;
  };
  const GfnRange guest{Gfn(0), Pick(effort, kFramesOfGiB, 64 * kFramesOf2M)};
  auto state = std::make_shared<State>(guest);
  for (const Gfn gfn : FramesBesideTheFirst(guest, Order::kSequential)) {
    state->halves[gfn.value / kFramesOf2M % kThreads].push_back(gfn);
  }
  const Frames first = FramesOf(guest, Order::kSequential, kFramesOf2M);
  Require(state->space.FaultEach(first) == first.size(), "a fault for each leaf table");

  const auto engine = [state](const Frames& frames) { return state->space.FaultEach(frames); };
  const auto bare = [state](const Frames& frames) { return state->composite.HandleEach(frames); };
  const auto clear_bare = [state] {
    for (const Frames& frames : state->halves) state->composite.UnmapEach(frames);
  };
  Trial trial;
  trial.measured = [=] {
    state->bare.AddTwoThreads(OnTwoThreadsNs(state->halves, bare));
    clear_bare();
    const double ns = OnTwoThreadsNs(state->halves, engine);
    state->space.ZapBesideTheFirst(guest);
    state->engine.AddTwoThreads(ns);
    return ns;
  };
  trial.floor = [=] {
    state->bare.AddOneThread(OnOneThreadNs(state->halves, bare));
    clear_bare();
    const double ns = OnOneThreadNs(state->halves, engine);
    state->space.ZapBesideTheFirst(guest);
    state->engine.AddOneThread(ns);
    return ns / kThreads;
  };
  trial.note = [state] {
    return "scales " + state->engine.Words() + ", the floor of a fault " + state->bare.Words();
  };
  return trial;
}

// A cost for each thread that should be what one thread pays alone.
template <typename Work>
Trial AlongsideTrial(uint64_t times, const Work& work) {
  auto engine = std::make_shared<EngineTables>(8);
  Trial trial;
  trial.measured = [=] {
    return TogetherNs([&](int) { work(*engine, times); }) / static_cast<double>(times);
  };
  trial.floor = [=] { return WallNs(times, [&] { work(*engine, times); }); };
  return trial;
}

}  // namespace

void AddThreadRows(Rows& rows) {
  // 1.9x of one thread is 2 / 1.9 of the half.
  rows.push_back({"fault_4k_2_threads", "ns/page", Target::Ratio(1.05), FaultTrial});
  rows.push_back({"fault_read_guard_2_threads", "ns", Target::AtMost(2.5), [](Effort e) {
                    return AlongsideTrial(Pick(e, 1'000'000, 50'000),
                                          [](EngineTables& engine, uint64_t times) {
                                            engine.GuardRepeatedly(times);
                                          });
                  }});
  rows.push_back({"fault_count_2_threads", "ns", Target::AtMost(1), [](Effort e) {
                    return AlongsideTrial(Pick(e, 1'000'000, 50'000),
                                          [](EngineTables& engine, uint64_t times) {
                                            engine.CountRepeatedly(times);
                                          });
                  }});
}

}  // namespace twinroot::bench
