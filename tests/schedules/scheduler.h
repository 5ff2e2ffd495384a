// Threads that run one at a time, and change only where the scheduler says: before each atomic
// access that another thread may disturb, at locks, and at epochs. So a run follows from its
// schedule, and can be had again.
//
// Not instrumented itself. Waiting is modelled, not done: a thread that waits for a lock, or for
// readers to leave an epoch, is not eligible until it can go on, so that deadlocks show. A broken
// rule (deadlock, use of freed memory, waiting for an epoch inside a guard) prints the schedule and
// ends the program: its threads cannot be unwound.
#ifndef TWINROOT_TESTS_SCHEDULES_SCHEDULER_H_
#define TWINROOT_TESTS_SCHEDULES_SCHEDULER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace twinroot::schedules {

inline constexpr int kMostThreads = 4;

// A moment at which more than one thread could go on.
struct Decision {
  uint8_t eligible;  // a bit for each thread
  int8_t current;    // who would go on without a preemption; -1: he cannot, or is between two
                     // operations: any choice is free
  int8_t chosen;
};

// "a17 b4 a": which thread made how many steps before the next took over; the last goes on by
// itself. In steps, not in decisions, so it does not depend on what was explored before.
struct Segment {
  int thread;
  int64_t steps;
};
std::string TextOf(const std::vector<Segment>& schedule);
std::vector<Segment> ScheduleOf(const std::string& text);

// Addresses that two threads touch, one of them writing: only there is a choice worth making.
// Learnt run by run; those outside the arena always count.
class Conflicts {
 public:
  Conflicts();
  bool Has(const volatile void* at) const;
  void Note(const volatile void* at, int thread, bool write);
  // What was noted since the last call counts from here on. True: there was something.
  bool Learn();

 private:
  static bool Meet(uint8_t word);
  static size_t IndexOf(const volatile void* at);
  std::vector<uint8_t> now_;  // by word: readers in the low four bits, writers in the high
  std::vector<bool> known_;
  bool grown_ = false;
};

// Once, before any run: makes the threads. `warm_up` is called on each and on the caller's own, so
// that what a thread allocates once and for good does not lie in the arena.
void StartThreads(void (*warm_up)());

using Thread = std::vector<std::function<void()>>;  // operations, one after the other

struct Run {
  std::vector<Decision> decisions;
  std::vector<Segment> schedule;
  int preemptions = 0;
  int64_t steps = 0;
};

// Runs the threads to their end. `choices`: what to choose at the first decisions; behind them, or
// without: whoever runs goes on as long as he can. `replay`, if not empty, decides instead of both.
// `name`: of the scenario, for what is printed.
Run RunThreads(const std::string& name, const std::vector<Thread>& threads, Conflicts& conflicts,
               const std::vector<int8_t>& choices, const std::vector<Segment>& replay = {});

// Of the run under way: printed, and the program ends.
[[noreturn]] void Broken(const char* what);

// What hooks.cc reports. Without effect on threads that are not scheduled.
bool Scheduled();
void BeforeAccess(const volatile void* at, bool write);
// A plain access: nobody may come between, unless somebody else frees what is read.
void CheckAlive(const volatile void* at);
void BeforeFree(const void* at, size_t bytes);
void Lock(void* mutex);
bool TryLock(void* mutex);
void Unlock(void* mutex);
void EnterEpoch();
void LeaveEpoch();
void WaitForEpoch();
void GiveWay();

}  // namespace twinroot::schedules

#endif  // TWINROOT_TESTS_SCHEDULES_SCHEDULER_H_
