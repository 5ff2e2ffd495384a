// All schedules of a scenario with few preemptions, fewest first: iterative context bounding
// (Musuvathi and Qadeer, "Iterative Context Bounding for Systematic Testing of Multithreaded
// Programs", 2007). A switch is a preemption unless the thread waits, has ended, or is between two
// operations; so schedules without any are the serial orders of the operations, and what they end
// in is what the others may end in.
#ifndef TWINROOT_TESTS_SCHEDULES_EXPLORER_H_
#define TWINROOT_TESTS_SCHEDULES_EXPLORER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tests/schedules/scheduler.h"

namespace twinroot::schedules {

class Scenario {
 public:
  virtual ~Scenario() = default;
  virtual std::string name() const = 0;
  // A world in its first state; the threads that run in it. Allocates in the arena.
  virtual void Begin() = 0;
  virtual const std::vector<Thread>& threads() const = 0;

  // What a run has come to.
  struct End {
    std::string broken;           // an invariant that does not hold; empty: all do
    std::vector<uint64_t> state;  // to be that of some serial order
  };
  virtual End Finish() = 0;
  // A state in words.
  virtual std::string TextOf(const std::vector<uint64_t>& state) const = 0;
};

struct Coverage {
  int64_t schedules = 0;  // runs that were all different, of all bounds
  int64_t serial = 0;     // of these without a preemption
  size_t states = 0;      // different ends
  int bound = 0;          // all with so many preemptions are among them
  bool part = false;      // and some with one more: all of those would have been too many
  size_t decisions = 0;   // the most in one run
  std::string failure;    // empty: none; else with the schedule that repeats it
};

// All with one preemption; with more, up to `bound`, as long as no bound needs more than `most`
// runs.
Coverage Explore(Scenario& scenario, int bound, int64_t most);

// The end of one schedule.
Scenario::End Repeat(Scenario& scenario, const std::string& schedule);

}  // namespace twinroot::schedules

#endif  // TWINROOT_TESTS_SCHEDULES_EXPLORER_H_
