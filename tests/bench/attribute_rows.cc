// Rows of private and shared: setting, and looking up.
#include <memory>

#include "tests/bench/bench_space.h"
#include "tests/bench/clock.h"
#include "tests/bench/engine_attributes.h"
#include "tests/bench/floor_attributes.h"
#include "tests/bench/frames.h"
#include "tests/bench/row.h"

namespace twinroot::bench {
namespace {

using mmu::Gfn;
using mmu::GfnRange;
using mmu::MemoryKind;

// The facade's whole call for one range of a guest of 4 TiB in which nothing is mapped: shared and
// back again.
class WholeCalls {
 public:
  explicit WholeCalls(Effort effort)
      : space_({.frames = 4 * 1024 * kFramesOfGiB, .table_pages = 64}),
        times_(Pick(effort, 2000, 50)) {}

  double Ns(uint64_t frames) {
    const GfnRange range{Gfn(1024 * kFramesOfGiB), frames};
    uint64_t converted = 0;
    const double ns = WallNs(2 * times_, [&] {
      for (uint64_t i = 0; i < times_; ++i) {
        converted += space_.Convert({range}, MemoryKind::kShared);
        converted += space_.Convert({range}, MemoryKind::kPrivate);
      }
    });
    Require(converted == 2 * times_ * frames, "a change of every frame");
    return ns;
  }
  double RunTreeNs(uint64_t frames) {
    const GfnRange range{Gfn(1024 * kFramesOfGiB), frames};
    return WallNs(2 * times_, [&] {
      for (uint64_t i = 0; i < times_; ++i) {
        runs_.Set(range, MemoryKind::kShared);
        runs_.Set(range, MemoryKind::kPrivate);
      }
    });
  }

 private:
  BenchSpace space_;
  RunTree runs_{MemoryKind::kPrivate};
  const uint64_t times_;
};

Trial SetTrial(Effort effort, uint64_t frames) {
  auto calls = std::make_shared<WholeCalls>(effort);
  return {.measured = [=] { return calls->Ns(frames); },
          .floor = [=] { return calls->RunTreeNs(frames); },
          .note = {}};
}

// What 1 TiB costs, with what 1 GiB costs as the floor.
Trial FlatTrial(Effort effort) {
  auto calls = std::make_shared<WholeCalls>(effort);
  return {.measured = [=] { return calls->Ns(1024 * kFramesOfGiB); },
          .floor = [=] { return calls->Ns(kFramesOfGiB); },
          .note = {}};
}

// Ranges of 8 pages anywhere in 1 GiB, set to what they were not: map against map.
Trial RandomRangesTrial(Effort effort) {
  constexpr uint64_t kPages = 8;
  const GfnRange guest{Gfn(4 * kFramesOfGiB), kFramesOfGiB};
  Frames starts = FramesOf(guest, Order::kRandom, kPages);
  starts.resize(Pick(effort, starts.size() / 2, 1000));
  auto engine = std::make_shared<EngineAttributes>();
  auto floor = std::make_shared<RunTree>(MemoryKind::kPrivate);
  engine->Set({Gfn(0), 16 * kFramesOfGiB}, MemoryKind::kPrivate);
  // Round for round they go from private to shared and back, the way not counted included.
  const auto both_ways = [starts](auto& map) {
    return CpuNs(2 * starts.size(), [&] {
      for (const MemoryKind kind : {MemoryKind::kShared, MemoryKind::kPrivate}) {
        for (const Gfn gfn : starts) map.Set({gfn, kPages}, kind);
      }
    });
  };
  return {.measured = [=] { return both_ways(*engine); },
          .floor = [=] { return both_ways(*floor); },
          .note = {}};
}

// 16,384 runs of 16 pages, in turns private and shared.
Trial LookUpTrial(Effort effort) {
  constexpr uint64_t kRun = 16;
  const GfnRange guest{Gfn(4 * kFramesOfGiB), Pick(effort, kFramesOfGiB, 64 * kFramesOf2M)};
  auto engine = std::make_shared<EngineAttributes>();
  auto floor = std::make_shared<PageRadix>();
  engine->Set(guest, MemoryKind::kPrivate);
  Frames frames;  // the shared ones: what is asked for
  for (const Gfn first : FramesOf(guest, Order::kSequential, kRun)) {
    const bool shared = first.value / kRun % 2 == 1;
    if (shared) engine->Set({first, kRun}, MemoryKind::kShared);
    for (Gfn gfn = first; gfn < first + kRun; gfn = gfn + 1) {
      floor->Set(gfn, shared ? MemoryKind::kShared : MemoryKind::kPrivate);
      if (shared) frames.push_back(gfn);
    }
  }
  Shuffle(frames);
  Trial trial;
  trial.measured = [=] {
    uint64_t shared = 0;
    const double ns = EachNs(frames.size(), [&] { shared = engine->AreShared(frames); });
    Require(shared == frames.size(), "a look-up of every attribute");
    return ns;
  };
  trial.floor = [=] {
    uint64_t shared = 0;
    const double ns = EachNs(frames.size(), [&] {
      shared = HowMany(frames, [&](Gfn gfn) { return floor->Get(gfn) == MemoryKind::kShared; });
    });
    Require(shared == frames.size(), "the floor's look-up of every attribute");
    return ns;
  };
  return trial;
}

}  // namespace

void AddAttributeRows(Rows& rows) {
  rows.push_back({"attribute_set_1gib", "ns/call", Target::AtMost(10'000),
                  [](Effort e) { return SetTrial(e, kFramesOfGiB); }});
  rows.push_back({"attribute_set_1tib", "ns/call", Target::AtMost(10'000),
                  [](Effort e) { return SetTrial(e, 1024 * kFramesOfGiB); }});
  rows.push_back({"attribute_set_1tib_over_1gib", "ns/call", Target::Ratio(1.25), FlatTrial});
  rows.push_back({"attribute_set_8_pages", "ns/range", Target::Ratio(1), RandomRangesTrial});
  rows.push_back({"attribute_look_up", "ns/page", Target::Ratio(0.5), LookUpTrial});
}

}  // namespace twinroot::bench
