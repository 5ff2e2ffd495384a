// Which frames a round touches, and in which order.
#ifndef TWINROOT_TESTS_BENCH_FRAMES_H_
#define TWINROOT_TESTS_BENCH_FRAMES_H_

#include <emmintrin.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "mmu/types/gfn_range.h"
#include "mmu/types/level.h"
#include "tests/bench/clock.h"

namespace twinroot::bench {

inline constexpr uint64_t kGiB = mmu::BytesPerEntry(mmu::Level::k1G);
inline constexpr uint64_t kTiB = 1024 * kGiB;
inline constexpr uint64_t kFramesOfGiB = mmu::FramesPerEntry(mmu::Level::k1G);
inline constexpr uint64_t kFramesOf2M = mmu::FramesPerEntry(mmu::Level::k2M);

enum class Order : uint8_t { kSequential, kRandom };
using Frames = std::vector<mmu::Gfn>;

// The same order in every run.
inline void Shuffle(Frames& frames) {
  std::mt19937_64 random(20240229);
  std::shuffle(frames.begin(), frames.end(), random);
}

// Every `step`-th frame of the range.
inline Frames FramesOf(mmu::GfnRange range, Order order, uint64_t step = 1) {
  Frames frames;
  frames.reserve(range.count / step);
  for (uint64_t i = 0; i < range.count; i += step) frames.push_back(range.first + i);
  if (order == Order::kRandom) Shuffle(frames);
  return frames;
}

// All but the first frame of each 2M page: with that one mapped, the leaf tables stay.
inline Frames FramesBesideTheFirst(mmu::GfnRange range, Order order) {
  Frames frames;
  frames.reserve(range.count);
  for (uint64_t i = 0; i < range.count; ++i) {
    const mmu::Gfn gfn = range.first + i;
    if (gfn.value % kFramesOf2M != 0) frames.push_back(gfn);
  }
  if (order == Order::kRandom) Shuffle(frames);
  return frames;
}

// kInTurn: each operation waits until all of the one before is done, as faults of a vCPU do, whose
// exits let nothing overlap. What comes out is the time that one takes (the waiting itself is
// subtracted).
// kOverlapped: a plain loop, in which the processor works on several at once.
enum class Pace : uint8_t { kInTurn, kOverlapped };
inline Pace pace = Pace::kInTurn;

// Does `op` for each frame, at the program's pace, and returns how often it said yes.
template <typename Op>
uint64_t HowMany(const Frames& frames, const Op& op) {
  uint64_t yes = 0;
  if (pace == Pace::kOverlapped) {
    for (const mmu::Gfn gfn : frames) yes += static_cast<uint64_t>(op(gfn));
    return yes;
  }
  for (const mmu::Gfn gfn : frames) {
    _mm_lfence();
    yes += static_cast<uint64_t>(op(gfn));
  }
  return yes;
}

// What the pace alone costs an operation: the same loop with nothing in it, measured just now.
inline double PaceNs() {
  if (pace == Pace::kOverlapped) return 0;
  static const Frames frames(20'000);
  return CpuNs(frames.size(),
               [] { Keep(HowMany(frames, [](mmu::Gfn gfn) { return gfn.value; })); });
}

// Nanoseconds of this thread for each of `count` operations that `work` does by HowMany.
template <typename Work>
double EachNs(uint64_t count, const Work& work) {
  const double pace_ns = PaceNs();
  return CpuNs(count, work) - pace_ns;
}

}  // namespace twinroot::bench

#endif  // TWINROOT_TESTS_BENCH_FRAMES_H_
