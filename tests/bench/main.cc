// Prints every row of a speed table beside its floor, measured in this very run.
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "tests/bench/frames.h"
#include "tests/bench/report.h"
#include "tests/bench/row.h"
#include "tests/bench/runner.h"

ABSL_FLAG(std::string, filter, "", "only rows whose name contains this");
ABSL_FLAG(int, rounds, 0, "rounds of each row, 1 to 1000; 0: 15, or 3 with --quick");
ABSL_FLAG(bool, quick, false, "little work in each round; any build may do this");
ABSL_FLAG(bool, overlapped, false,
          "let the processor overlap one operation with the next, as in a plain loop");
ABSL_FLAG(bool, list, false, "print the rows and their targets, and measure nothing");
ABSL_FLAG(std::string, json, "", "also write the results to this file");

namespace twinroot::bench {
namespace {

#if defined(__OPTIMIZE__) && defined(NDEBUG)
constexpr bool kOptimized = true;
#else
constexpr bool kOptimized = false;
#endif

constexpr int kNotHere = 3;  // the exit code

Rows ChosenRows() {
  Rows all;
  AddAllRows(all);
  const std::string filter = absl::GetFlag(FLAGS_filter);
  Rows chosen;
  for (Row& row : all) {
    if (row.name.find(filter) != std::string::npos) chosen.push_back(std::move(row));
  }
  return chosen;
}

int Main() {
  const Rows rows = ChosenRows();
  if (rows.empty()) {
    std::fprintf(stderr, "%s: no row's name contains '%s'; --list shows them\n", kProgram,
                 absl::GetFlag(FLAGS_filter).c_str());
    return 2;
  }
  if (absl::GetFlag(FLAGS_list)) {
    for (const Row& row : rows) std::printf("%s\t%s\n", row.name.c_str(), Word(row.target).c_str());
    return 0;
  }
  const Effort effort = absl::GetFlag(FLAGS_quick) ? Effort::kQuick : Effort::kFull;
  if (!kOptimized && effort == Effort::kFull) {
    std::fprintf(stderr,
                 "%s: this build is not optimized, its figures would mean nothing; use\n"
                 "  bazel run -c opt //tests/bench:%s\n"
                 "or --quick to see only that every row runs\n",
                 kProgram, kProgram);
    return 2;
  }
  int rounds = absl::GetFlag(FLAGS_rounds);
  if (rounds == 0) rounds = effort == Effort::kQuick ? 3 : 15;
  if (rounds < 1 || rounds > 1000) {
    std::fprintf(stderr, "%s: --rounds is 1 to 1000, not %d\n", kProgram, rounds);
    return 2;
  }

  if (const std::string why = WhyNotHere(); !why.empty()) {
    std::fprintf(stderr, "%s: cannot be measured here: %s\n", kProgram, why.c_str());
    return kNotHere;
  }
  if (absl::GetFlag(FLAGS_overlapped)) pace = Pace::kOverlapped;
  std::printf("%s", TableHead().c_str());
  std::vector<Result> results;
  for (const Row& row : rows) {
    results.push_back(Run(row, effort, rounds));
    std::printf("%s", TableLine(results.back()).c_str());
    std::fflush(stdout);
  }
  const std::string path = absl::GetFlag(FLAGS_json);
  if (path.empty()) return 0;
  std::ofstream file(path);
  file << Json({.effort = effort, .rounds = rounds, .optimized = kOptimized, .pace = pace},
               results);
  file.close();
  if (!file) {
    std::fprintf(stderr, "%s: cannot write %s\n", kProgram, path.c_str());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace twinroot::bench

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "measures what the rows name beside their floors; see tests/bench/README.md");
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  if (rest.size() > 1) {
    std::fprintf(stderr, "%s: what is '%s'? Only flags are taken; --help names them\n",
                 twinroot::bench::kProgram, rest[1]);
    return 2;
  }
  return twinroot::bench::Main();
}
