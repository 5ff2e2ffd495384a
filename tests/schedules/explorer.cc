#include "tests/schedules/explorer.h"

#include <algorithm>
#include <set>

#include "tests/schedules/arena.h"

namespace twinroot::schedules {
namespace {

using States = std::set<std::vector<uint64_t>>;

class Explorer {
 public:
  Explorer(Scenario& scenario, int64_t most, Coverage& coverage)
      : scenario_(scenario), most_(most), coverage_(coverage), name_(scenario.name()) {}

  // Orders of whole operations.
  void Serial() {
    coverage_.serial = Search(0, [this](const Run&, const Scenario::End& end) {
      serial_.insert(end.state);
      return end.broken;
    });
    coverage_.schedules = coverage_.serial;
  }

  // False: something was wrong, or there were too many.
  bool UpTo(int bound) {
    do {
      coverage_.schedules = Search(bound, [this](const Run&, const Scenario::End& end) {
        if (!end.broken.empty() || serial_.count(end.state) != 0) return end.broken;
        std::string text = "no order of the operations ends like this:\n    " +
                           scenario_.TextOf(end.state) + "\n  but these do:";
        for (const auto& state : serial_) text += "\n    " + scenario_.TextOf(state);
        return text;
      });
    } while (coverage_.failure.empty() && !coverage_.part && conflicts_.Learn());
    coverage_.states = states_.size();
    if (!coverage_.failure.empty() || coverage_.part) return false;
    coverage_.bound = bound;
    return true;
  }

  bool Learn() { return conflicts_.Learn(); }

 private:
  // A decision of the run that was last, and what is left to be tried there.
  struct Branch {
    Decision decision;
    uint8_t untried;
    int preemptions;  // before it
  };

  template <typename Check>
  int64_t Search(int bound, const Check& check) {
    int64_t runs = 0;
    std::vector<Branch> branches;
    std::vector<int8_t> choices;
    do {
      choices.clear();
      for (const Branch& branch : branches) choices.push_back(branch.decision.chosen);
      {
        const ArenaScope arena(0);
        scenario_.Begin();
      }
      const Run run = RunThreads(name_, scenario_.threads(), conflicts_, choices);
      const Scenario::End end = scenario_.Finish();
      ResetArena();
      ++runs;
      states_.insert(end.state);
      if (const std::string wrong = check(run, end); !wrong.empty()) {
        coverage_.failure = wrong + "\n  repeat with TWINROOT_SCHEDULE='" + name_ + ": " +
                            TextOf(run.schedule) + "'";
        return runs;
      }
      coverage_.decisions = std::max(coverage_.decisions, run.decisions.size());
      Extend(branches, run, bound);
      // What was learnt early is better used at once: the search begins again.
      if (runs <= kEarly && bound > 0 && conflicts_.Learn()) {
        branches.clear();
        runs = 0;
        continue;
      }
      if (!Next(branches, bound)) break;
      coverage_.part = bound > 1 && runs == most_;
    } while (!coverage_.part);
    return runs;
  }

  static int Cost(const Decision& decision, int8_t choice) {
    return decision.current >= 0 && choice != decision.current ? 1 : 0;
  }

  static void Extend(std::vector<Branch>& branches, const Run& run, int bound) {
    int preemptions = 0;
    for (size_t i = 0; i < run.decisions.size(); ++i) {
      const Decision& decision = run.decisions[i];
      if (i >= branches.size()) {
        uint8_t untried = decision.eligible & static_cast<uint8_t>(~(1 << decision.chosen));
        if (decision.current >= 0 && preemptions >= bound) untried = 0;
        branches.push_back({decision, untried, preemptions});
      }
      preemptions += Cost(decision, decision.chosen);
    }
  }

  // The next choices; false: all were made.
  static bool Next(std::vector<Branch>& branches, int bound) {
    for (; !branches.empty(); branches.pop_back()) {
      Branch& last = branches.back();
      if (last.untried == 0) continue;
      const auto choice = static_cast<int8_t>(__builtin_ctz(last.untried));
      last.untried &= static_cast<uint8_t>(last.untried - 1);
      if (last.preemptions + Cost(last.decision, choice) > bound) continue;
      last.decision.chosen = choice;
      return true;
    }
    return false;
  }

  static constexpr int64_t kEarly = 20;

  Scenario& scenario_;
  const int64_t most_;
  Coverage& coverage_;
  const std::string name_;
  Conflicts conflicts_;
  States serial_;
  States states_;
};

}  // namespace

Coverage Explore(Scenario& scenario, int bound, int64_t most) {
  Coverage coverage;
  Explorer explorer(scenario, most, coverage);
  explorer.Serial();
  if (!coverage.failure.empty()) return coverage;
  explorer.Learn();
  for (int i = 1; i <= bound && explorer.UpTo(i); ++i) {
  }
  return coverage;
}

Scenario::End Repeat(Scenario& scenario, const std::string& schedule) {
  {
    const ArenaScope arena(0);
    scenario.Begin();
  }
  Conflicts conflicts;
  RunThreads(scenario.name(), scenario.threads(), conflicts, {}, ScheduleOf(schedule));
  Scenario::End end = scenario.Finish();
  ResetArena();
  return end;
}

}  // namespace twinroot::schedules
