// The table and the JSON of a run.
#ifndef TWINROOT_TESTS_BENCH_REPORT_H_
#define TWINROOT_TESTS_BENCH_REPORT_H_

#include <string>
#include <vector>

#include "tests/bench/frames.h"
#include "tests/bench/runner.h"

namespace twinroot::bench {

// "<= 1.75x", "<= 2.5", "-".
std::string Word(const Target& target);

std::string TableHead();
std::string TableLine(const Result& result);

struct RunFacts {
  Effort effort = Effort::kFull;
  int rounds = 0;
  bool optimized = false;
  Pace pace = Pace::kInTurn;
};
std::string Json(const RunFacts& facts, const std::vector<Result>& results);

}  // namespace twinroot::bench

#endif  // TWINROOT_TESTS_BENCH_REPORT_H_
