// Time of one piece of work, and what keeps the compiler from leaving the work out.
#ifndef TWINROOT_TESTS_BENCH_CLOCK_H_
#define TWINROOT_TESTS_BENCH_CLOCK_H_

#include <time.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace twinroot::bench {

inline double Now(clockid_t clock) {
  timespec at;
  clock_gettime(clock, &at);
  return static_cast<double>(at.tv_sec) * 1e9 + static_cast<double>(at.tv_nsec);
}

// Nanoseconds of this thread for each of `units`: for work on one thread that waits for nobody.
// Others that run on the same core meanwhile are not counted.
template <typename Work>
double CpuNs(uint64_t units, const Work& work) {
  const double start = Now(CLOCK_THREAD_CPUTIME_ID);
  work();
  return (Now(CLOCK_THREAD_CPUTIME_ID) - start) / static_cast<double>(units);
}

// The same of the wall clock: for work that may wait.
template <typename Work>
double WallNs(uint64_t units, const Work& work) {
  const double start = Now(CLOCK_MONOTONIC);
  work();
  return (Now(CLOCK_MONOTONIC) - start) / static_cast<double>(units);
}

template <typename Value>
inline void Keep(const Value& value) {
  asm volatile("" : : "r,m"(value) : "memory");
}

// A row whose work did not happen has no figure: the program ends.
inline void Require(bool happened, const char* what) {
  if (happened) return;
  std::fprintf(stderr, "did not happen: %s\n", what);
  std::exit(1);
}

}  // namespace twinroot::bench

#endif  // TWINROOT_TESTS_BENCH_CLOCK_H_
