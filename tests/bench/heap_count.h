// How many bytes of the heap this thread holds: what every `new` gave and no `delete` took back,
// while counting was on.
#ifndef TWINROOT_TESTS_BENCH_HEAP_COUNT_H_
#define TWINROOT_TESTS_BENCH_HEAP_COUNT_H_

#include <cstdint>

namespace twinroot::bench {

// Counts while it lives. One at a time on a thread.
class HeapCount {
 public:
  HeapCount();
  ~HeapCount();
  HeapCount(const HeapCount&) = delete;
  HeapCount& operator=(const HeapCount&) = delete;

  // Never less than what was asked for: the allocator's rounding is in it.
  int64_t bytes() const;
};

}  // namespace twinroot::bench

#endif  // TWINROOT_TESTS_BENCH_HEAP_COUNT_H_
