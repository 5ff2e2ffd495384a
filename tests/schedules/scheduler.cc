#include "tests/schedules/scheduler.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>

#include <cctype>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <utility>

#include "tests/schedules/arena.h"

namespace twinroot::schedules {
namespace {

enum class State : uint8_t { kIdle, kReady, kWantsLock, kWaitsForEpoch, kGaveWay, kDone };

struct Worker {
  State state = State::kIdle;
  sem_t wake;
  const Thread* body = nullptr;
  void* wanted = nullptr;          // kWantsLock
  uint64_t awaited[kMostThreads];  // kWaitsForEpoch: the guards that must be left; 0: none
  uint64_t writes_seen = 0;        // kGaveWay: goes on when others have written since
  int depth = 0;                   // of guards
  uint64_t guard = 0;              // the outermost; each has a number of its own
};

struct HeldLock {
  void* mutex;
  int owner;
};

// Longer than any run that comes to an end.
constexpr int64_t kMostSteps = 1 << 20;
constexpr int kMostBarren = 1000;
// Stands for the epochs: guards read it, who waits for an epoch writes it.
const void* const kEpochWord = reinterpret_cast<const void*>(kArenaBase + kArenaBytes - 8);

Worker workers[kMostThreads];
int count;    // of threads in this run
int current;  // who has the baton
sem_t all_done;
Run run;
const std::vector<int8_t>* choices;
const std::vector<Segment>* replay;
size_t replayed;
Conflicts* conflicts;
const std::string* scenario;
int64_t segment_steps;
uint64_t writes;
uint64_t guards;
int barren;  // times that somebody gave way since anything was written
std::vector<HeldLock> locks;

// This thread is scheduled, and not in here.
thread_local int self = -1;
class Inside {
 public:
  Inside() : self_(self) { self = -1; }
  ~Inside() { self = self_; }
  int thread() const { return self_; }

 private:
  const int self_;
  const ArenaScope malloced_{kNoPiece};
};

int OwnerOf(void* mutex) {
  for (const HeldLock& lock : locks) {
    if (lock.mutex == mutex) return lock.owner;
  }
  return -1;
}

bool Eligible(int i) {
  const Worker& worker = workers[i];
  switch (worker.state) {
    case State::kReady:
      return true;
    case State::kWantsLock:
      return OwnerOf(worker.wanted) == -1;
    case State::kWaitsForEpoch:
      for (int other = 0; other < count; ++other) {
        if (worker.awaited[other] != 0 && workers[other].guard == worker.awaited[other]) {
          return false;
        }
      }
      return true;
    case State::kGaveWay:
      return writes > worker.writes_seen;
    case State::kIdle:
    case State::kDone:
      return false;
  }
  return false;
}

void SwitchTo(int next, int me) {
  if (next == me) return;
  run.schedule.push_back({current, segment_steps});
  segment_steps = 0;
  current = next;
  workers[next].state = State::kReady;
  // From the post on all of this is the next one's.
  const bool goes_on = workers[me].state != State::kDone;
  sem_post(&workers[next].wake);
  while (goes_on && sem_wait(&workers[me].wake) != 0) {
  }
}

// Who goes on. `free`: whoever is chosen, it is no preemption.
int Choose(bool free) {
  uint8_t eligible = 0;
  uint8_t patient = 0;
  for (int i = 0; i < count; ++i) {
    eligible |= static_cast<uint8_t>(Eligible(i) << i);
    patient |= static_cast<uint8_t>((workers[i].state == State::kGaveWay) << i);
  }
  // Two who try again and again must not keep off the one whom both wait for.
  if (free && (eligible & ~patient) != 0) eligible &= static_cast<uint8_t>(~patient);
  if (eligible == 0) {
    // Those who gave way try again, in turn.
    for (int i = 1; i <= count; ++i) {
      const int next = (current + i) % count;
      if (workers[next].state != State::kGaveWay) continue;
      if (++barren > kMostBarren)
        Broken("all threads wait for each other, and look again and again");
      return next;
    }
    Broken("deadlock: every thread waits");
  }
  int chosen = eligible >> current & 1 ? current : __builtin_ctz(eligible);
  if ((eligible & (eligible - 1)) == 0) return chosen;
  const size_t at = run.decisions.size();
  if (at < choices->size()) {
    chosen = (*choices)[at];
    if (!(eligible >> chosen & 1)) Broken("this run is not the one that it repeats");
  }
  const bool preempts = !free && (eligible >> current & 1);
  run.decisions.push_back(
      {eligible, static_cast<int8_t>(preempts ? current : -1), static_cast<int8_t>(chosen)});
  if (preempts && chosen != current) ++run.preemptions;
  return chosen;
}

// The next of the schedule that is repeated, or -1.
int NextReplayed() {
  while (replayed + 1 < replay->size()) {
    const int next = (*replay)[++replayed].thread;
    if (next < count && Eligible(next)) return next;
  }
  return -1;
}

// A moment at which another may go on instead.
void Step(int me, bool choice) {
  if (++run.steps > kMostSteps) Broken("this run does not come to an end");
  if (!replay->empty()) {
    if (replayed + 1 < replay->size() && segment_steps >= (*replay)[replayed].steps) {
      if (const int next = NextReplayed(); next >= 0) SwitchTo(next, me);
    }
  } else if (choice && count > 1) {
    SwitchTo(Choose(/*free=*/false), me);
  }
  ++segment_steps;
}

// Until the state of `me` lets him go on.
void Pause(int me) {
  int next = -1;
  if (!replay->empty()) next = NextReplayed();
  SwitchTo(next >= 0 ? next : Choose(/*free=*/true), me);
  workers[me].state = State::kReady;
}

// Between two operations of a thread: any order here is an order of operations.
void Between(int me) {
  if (replay->empty()) return SwitchTo(Choose(/*free=*/true), me);
  if (segment_steps < (*replay)[replayed].steps) return;
  if (const int next = NextReplayed(); next >= 0) SwitchTo(next, me);
}

void Work(int me, void (*warm_up)()) {
  warm_up();
  while (true) {
    while (sem_wait(&workers[me].wake) != 0) {
    }
    const Thread& body = *workers[me].body;
    for (size_t i = 0; i < body.size(); ++i) {
      if (i > 0) Between(me);
      const ArenaScope arena(me + 1);
      self = me;
      body[i]();
      self = -1;
    }
    if (workers[me].depth != 0) Broken("a thread ended inside a guard");
    workers[me].state = State::kDone;
    ++writes;
    bool all = true;
    for (int i = 0; i < count; ++i) all = all && workers[i].state == State::kDone;
    if (all) {
      run.schedule.push_back({me, segment_steps});
      sem_post(&all_done);
    } else {
      int next = replay->empty() ? -1 : NextReplayed();
      SwitchTo(next >= 0 ? next : Choose(/*free=*/true), me);
    }
  }
}

void OnCrash(int) { Broken("a thread crashed"); }

}  // namespace

void StartThreads(void (*warm_up)()) {
  for (const int fault : {SIGSEGV, SIGBUS, SIGABRT}) std::signal(fault, OnCrash);
  warm_up();
  // One processor: who hands the baton on goes to sleep anyway.
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(sched_getcpu(), &one);
  pthread_setaffinity_np(pthread_self(), sizeof(one), &one);
  sem_init(&all_done, 0, 0);
  for (int i = 0; i < kMostThreads; ++i) {
    sem_init(&workers[i].wake, 0, 0);
    std::thread(Work, i, warm_up).detach();
  }
}

std::string TextOf(const std::vector<Segment>& schedule) {
  std::string text;
  for (size_t i = 0; i < schedule.size(); ++i) {
    if (i > 0) text += ' ';
    text += static_cast<char>('a' + schedule[i].thread);
    if (i + 1 < schedule.size()) text += std::to_string(schedule[i].steps);
  }
  return text;
}

std::vector<Segment> ScheduleOf(const std::string& text) {
  std::vector<Segment> schedule;
  for (const char c : text) {
    if (c >= 'a' && c < 'a' + kMostThreads) schedule.push_back({c - 'a', 0});
    if (std::isdigit(static_cast<unsigned char>(c)) && !schedule.empty()) {
      schedule.back().steps = schedule.back().steps * 10 + (c - '0');
    }
  }
  return schedule;
}

Conflicts::Conflicts() : now_(kArenaBytes / 8), known_(kArenaBytes / 8) {}
size_t Conflicts::IndexOf(const volatile void* at) {
  return (reinterpret_cast<uintptr_t>(at) - kArenaBase) / 8;
}
bool Conflicts::Meet(uint8_t word) {
  const int writers = word >> 4;
  const int users = (word & 15) | writers;
  return writers != 0 && (users & (users - 1)) != 0;
}
bool Conflicts::Has(const volatile void* at) const { return !InArena(at) || known_[IndexOf(at)]; }
void Conflicts::Note(const volatile void* at, int thread, bool write) {
  if (!InArena(at)) return;
  uint8_t& word = now_[IndexOf(at)];
  const bool met = Meet(word);
  word |= static_cast<uint8_t>((write ? 16 : 1) << thread);
  grown_ = grown_ || (!met && Meet(word));
}
bool Conflicts::Learn() {
  if (!grown_) return false;
  for (size_t i = 0; i < now_.size(); ++i) known_[i] = Meet(now_[i]);
  grown_ = false;
  return true;
}

Run RunThreads(const std::string& name, const std::vector<Thread>& threads,
               Conflicts& the_conflicts, const std::vector<int8_t>& the_choices,
               const std::vector<Segment>& the_replay) {
  run = Run();
  count = static_cast<int>(threads.size());
  choices = &the_choices;
  replay = &the_replay;
  replayed = 0;
  conflicts = &the_conflicts;
  scenario = &name;
  segment_steps = 0;
  writes = guards = 0;
  barren = 0;
  locks.clear();
  for (int i = 0; i < count; ++i) {
    workers[i].state = State::kReady;
    workers[i].body = &threads[i];
    workers[i].depth = 0;
    workers[i].guard = 0;
  }
  current = 0;
  const int first = replay->empty() ? Choose(/*free=*/true) : replay->front().thread;
  current = first;
  sem_post(&workers[first].wake);
  while (sem_wait(&all_done) != 0) {
  }
  return std::move(run);
}

void Broken(const char* what) {
  std::vector<Segment> schedule = run.schedule;
  schedule.push_back({current, segment_steps});
  std::fprintf(stderr, "%s: %s\n  repeat with TWINROOT_SCHEDULE='%s: %s'\n", scenario->c_str(),
               what, scenario->c_str(), TextOf(schedule).c_str());
  std::_Exit(1);
}

bool Scheduled() { return self >= 0; }

void BeforeAccess(const volatile void* at, bool write) {
  if (self < 0) return;
  const Inside inside;
  const int me = inside.thread();
  if (IsFreed(at)) Broken("an atomic word was used after it was freed");
  conflicts->Note(at, me, write);
  Step(me, conflicts->Has(at));
  if (!write) return;
  ++writes;
  barren = 0;
}

void CheckAlive(const volatile void* at) {
  if (self < 0 || !InArena(at)) return;
  const Inside inside;
  conflicts->Note(at, inside.thread(), false);
  if (conflicts->Has(at)) Step(inside.thread(), true);
  if (IsFreed(at)) Broken("memory was used after it was freed");
}

void BeforeFree(const void* at, size_t bytes) {
  if (self < 0) return;
  const Inside inside;
  for (size_t i = 0; i < bytes; i += 8) {
    conflicts->Note(static_cast<const char*>(at) + i, inside.thread(), true);
  }
}

void Lock(void* mutex) {
  const Inside inside;
  const int me = inside.thread();
  if (IsFreed(mutex)) Broken("a lock was used after it was freed");
  conflicts->Note(mutex, me, true);
  Step(me, conflicts->Has(mutex));
  while (OwnerOf(mutex) != -1) {
    if (OwnerOf(mutex) == me) Broken("a thread wants the lock that it has");
    workers[me].state = State::kWantsLock;
    workers[me].wanted = mutex;
    Pause(me);
  }
  locks.push_back({mutex, me});
}

bool TryLock(void* mutex) {
  const Inside inside;
  const int me = inside.thread();
  conflicts->Note(mutex, me, true);
  Step(me, conflicts->Has(mutex));
  if (OwnerOf(mutex) != -1) return false;
  locks.push_back({mutex, me});
  return true;
}

void Unlock(void* mutex) {
  const Inside inside;
  for (size_t i = 0; i < locks.size(); ++i) {
    if (locks[i].mutex == mutex) {
      locks.erase(locks.begin() + static_cast<ptrdiff_t>(i));
      break;
    }
  }
  ++writes;
  barren = 0;
}

void EnterEpoch() {
  if (self < 0) return;
  const Inside inside;
  const int me = inside.thread();
  if (workers[me].depth++ != 0) return;
  conflicts->Note(kEpochWord, me, false);
  Step(me, conflicts->Has(kEpochWord));
  workers[me].guard = ++guards;
}

void LeaveEpoch() {
  if (self < 0) return;
  const Inside inside;
  const int me = inside.thread();
  if (--workers[me].depth != 0) return;
  workers[me].guard = 0;
  ++writes;
  barren = 0;
}

void WaitForEpoch() {
  if (self < 0) return;
  const Inside inside;
  const int me = inside.thread();
  if (workers[me].depth != 0) Broken("a thread waits for an epoch inside a guard");
  conflicts->Note(kEpochWord, me, true);
  Step(me, conflicts->Has(kEpochWord));
  bool waits = false;
  for (int i = 0; i < count; ++i) {
    workers[me].awaited[i] = workers[i].guard;
    waits = waits || workers[i].guard != 0;
  }
  if (!waits) return;
  workers[me].state = State::kWaitsForEpoch;
  Pause(me);
}

void GiveWay() {
  const Inside inside;
  const int me = inside.thread();
  if (++run.steps > kMostSteps) Broken("this run does not come to an end");
  ++segment_steps;
  workers[me].state = State::kGaveWay;
  workers[me].writes_seen = writes;
  Pause(me);
}

}  // namespace twinroot::schedules
