#include "tests/bench/runner.h"

#include <algorithm>
#include <vector>

namespace twinroot::bench {
namespace {

Summary Summarize(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto at = [&values](size_t quarter) { return values[(values.size() - 1) * quarter / 4]; };
  return {.best = at(0), .low_quartile = at(1), .median = at(2), .high_quartile = at(3)};
}

Verdict Judge(const Result& result) {
  switch (result.target.of) {
    case Target::Of::kReport:
      return Verdict::kNone;
    case Target::Of::kValue:
      return result.measured.best <= result.target.limit ? Verdict::kOk : Verdict::kOver;
    case Target::Of::kRatio:
      return result.ratio && *result.ratio <= result.target.limit ? Verdict::kOk : Verdict::kOver;
  }
  return Verdict::kNone;
}

}  // namespace

Result Run(const Row& row, Effort effort, int rounds) {
  const Trial trial = row.make(effort);
  std::vector<double> measured, floor, ratios;
  // The first round warms caches and predictors; with a single round it is all there is.
  const int warm = rounds > 1 ? 1 : 0;
  for (int round = 0; round < rounds + warm; ++round) {
    // Who goes first changes from round to round.
    double at_least = 0;
    if (trial.floor && round % 2 == 0) at_least = trial.floor();
    const double took = trial.measured();
    if (trial.floor && round % 2 == 1) at_least = trial.floor();
    if (round < warm) continue;
    measured.push_back(took);
    if (!trial.floor) continue;
    floor.push_back(at_least);
    ratios.push_back(took / at_least);
  }
  Result result{.name = row.name,
                .unit = row.unit,
                .target = row.target,
                .measured = Summarize(measured),
                .floor = std::nullopt,
                .ratio = std::nullopt,
                .round_ratios = std::nullopt,
                .note = trial.note ? trial.note() : ""};
  if (trial.floor) {
    result.floor = Summarize(floor);
    result.ratio = result.measured.best / result.floor->best;
    result.round_ratios = Summarize(ratios);
  }
  result.verdict = Judge(result);
  return result;
}

}  // namespace twinroot::bench
