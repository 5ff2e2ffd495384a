// The engine's attribute map without a VM around it. Like engine_tables, this follows the engine's
// rooms so that the rows need not.
#ifndef TWINROOT_TESTS_BENCH_ENGINE_ATTRIBUTES_H_
#define TWINROOT_TESTS_BENCH_ENGINE_ATTRIBUTES_H_

#include <cstdint>
#include <memory>

#include "mmu/types/gfn_range.h"
#include "mmu/types/memory_kind.h"
#include "tests/bench/frames.h"

namespace twinroot::bench {

class EngineAttributes {
 public:
  EngineAttributes();
  ~EngineAttributes();

  // All that a change does about attributes: makes room, then commits.
  void Set(mmu::GfnRange range, mmu::MemoryKind kind);
  // How many of the frames, all of which are shared.
  uint64_t AreShared(const Frames& frames) const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace twinroot::bench

#endif  // TWINROOT_TESTS_BENCH_ENGINE_ATTRIBUTES_H_
