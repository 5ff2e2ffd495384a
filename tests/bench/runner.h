// Runs the rounds of a row and says what they came to.
#ifndef TWINROOT_TESTS_BENCH_RUNNER_H_
#define TWINROOT_TESTS_BENCH_RUNNER_H_

#include <optional>
#include <string>

#include "tests/bench/row.h"

namespace twinroot::bench {

// Of the rounds. `best` is the lowest: on a shared machine others only ever add.
struct Summary {
  double best = 0, low_quartile = 0, median = 0, high_quartile = 0;
};

enum class Verdict : uint8_t { kOk, kOver, kNone };

struct Result {
  std::string name;
  std::string unit;
  Target target;
  Summary measured;
  std::optional<Summary> floor;
  // The best measured over the best floor; what the target is compared with.
  std::optional<double> ratio;
  // Each round's measured over the floor beside it: how far the rounds agree.
  std::optional<Summary> round_ratios;
  Verdict verdict = Verdict::kNone;
  std::string note;
};

Result Run(const Row& row, Effort effort, int rounds);

}  // namespace twinroot::bench

#endif  // TWINROOT_TESTS_BENCH_RUNNER_H_
