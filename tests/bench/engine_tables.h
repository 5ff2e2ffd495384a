// One root of the engine without a VM around it: what map, zap and look-up cost by themselves.
// The only place of the benchmark that knows the engine's rooms below the facade, with
// engine_attributes; when those change, these two follow and the rows stay.
#ifndef TWINROOT_TESTS_BENCH_ENGINE_TABLES_H_
#define TWINROOT_TESTS_BENCH_ENGINE_TABLES_H_

#include <cstdint>
#include <memory>

#include "mmu/types/gfn_range.h"
#include "tests/bench/arena.h"
#include "tests/bench/frames.h"

namespace twinroot::bench {

class EngineTables {
 public:
  // Of `pages` table pages.
  explicit EngineTables(size_t pages);
  ~EngineTables();

  // Each returns how many pages it mapped, unmapped or found.
  // Maps each frame as 4K, under one token; tables as a fault takes them.
  uint64_t MapEach(const Frames& frames);
  // One zap for each frame or one for the range, one flush batch for all.
  uint64_t ZapEach(const Frames& frames);
  uint64_t ZapRange(mmu::GfnRange range);
  uint64_t LookUpEach(const Frames& frames);
  // Clears the leaves of the range and leaves its tables.
  void ClearLeaves(mmu::GfnRange range);

  // Takes and leaves, `times` times, what a fault holds while it reads and maps.
  void GuardRepeatedly(uint64_t times);
  // Counts what a fault counts about its leaf, `times` times.
  void CountRepeatedly(uint64_t times);

  const Arena& arena() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

// Bytes that the engine keeps for each table page, the page itself included.
uint64_t BytesOfATable();

}  // namespace twinroot::bench

#endif  // TWINROOT_TESTS_BENCH_ENGINE_TABLES_H_
