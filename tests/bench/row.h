// One row of the speed table: what the engine does, beside its floor, the bare work in a loop.
//
// A row makes a Trial: state that lives for all its rounds. A round is one call of `floor` and one
// of `measured`, in turns, so that both see the same weather on a shared machine.
#ifndef TWINROOT_TESTS_BENCH_ROW_H_
#define TWINROOT_TESTS_BENCH_ROW_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace twinroot::bench {

// How much work a round does. kQuick: a few hundred milliseconds a row in an optimized build, for
// CI.
enum class Effort : uint8_t { kFull, kQuick };

constexpr uint64_t Pick(Effort effort, uint64_t full, uint64_t quick) {
  return effort == Effort::kFull ? full : quick;
}

struct Target {
  enum class Of : uint8_t {
    kRatio,   // measured / floor is at most the limit
    kValue,   // measured is at most the limit, in the row's unit
    kReport,  // nothing is promised
  };
  Of of = Of::kReport;
  double limit = 0;

  static Target Ratio(double limit) { return {Of::kRatio, limit}; }
  static Target AtMost(double limit) { return {Of::kValue, limit}; }
  static Target Report() { return {}; }
};

struct Trial {
  // Each does its work once, from the same state, and returns what it cost in the row's unit.
  // Preparing and undoing are not counted.
  std::function<double()> measured;
  std::function<double()> floor;  // empty: the row has none
  // What the numbers alone do not say; asked for after the last round. May be empty.
  std::function<std::string()> note;
};

struct Row {
  std::string name;
  std::string unit;
  Target target;
  std::function<Trial(Effort)> make;
};
using Rows = std::vector<Row>;

// What each program defines: its name, its rows in the order of the table, and why this host cannot
// measure them, empty if it can.
extern const char kProgram[];
void AddAllRows(Rows& rows);
std::string WhyNotHere();

// One function for each file of the engine's rows.
void AddMapRows(Rows& rows);
void AddUnmapRows(Rows& rows);
void AddFaultRows(Rows& rows);
void AddThreadRows(Rows& rows);
void AddAttributeRows(Rows& rows);
void AddConversionRows(Rows& rows);
void AddDirtyLogRows(Rows& rows);
void AddSplitRows(Rows& rows);
void AddSizeRows(Rows& rows);

}  // namespace twinroot::bench

#endif  // TWINROOT_TESTS_BENCH_ROW_H_
