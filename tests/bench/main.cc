// Prints every row of the engine's speed table beside its floor, measured in this very run.
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

Rows ChosenRows() {
  Rows all;
  AddMapRows(all);
  AddUnmapRows(all);
  AddFaultRows(all);
  AddThreadRows(all);
  AddAttributeRows(all);
  AddConversionRows(all);
  AddDirtyLogRows(all);
  AddSplitRows(all);
  AddSizeRows(all);
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
    std::fprintf(stderr, "engine: no row's name contains '%s'; --list shows them\n",
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
                 "engine: this build is not optimized, its figures would mean nothing; use\n"
                 "  bazel run -c opt //tests/bench:engine\n"
                 "or --quick to see only that every row runs\n");
    return 2;
  }
  int rounds = absl::GetFlag(FLAGS_rounds);
  if (rounds == 0) rounds = effort == Effort::kQuick ? 3 : 15;
  if (rounds < 1 || rounds > 1000) {
    std::fprintf(stderr, "engine: --rounds is 1 to 1000, not %d\n", rounds);
    return 2;
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
    std::fprintf(stderr, "engine: cannot write %s\n", path.c_str());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace twinroot::bench

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("measures the engine beside the floors; see tests/bench/README.md");
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  if (rest.size() > 1) {
    std::fprintf(stderr, "engine: what is '%s'? Only flags are taken; --help names them\n",
                 rest[1]);
    return 2;
  }
  return twinroot::bench::Main();
}
