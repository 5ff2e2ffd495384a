// How the engine makes processors forget translations. Declared here, implemented by whoever runs
// vCPUs (the software processor of `sim`, fakes in tests).
#ifndef TWINROOT_MMU_TABLES_TLB_FLUSHER_H_
#define TWINROOT_MMU_TABLES_TLB_FLUSHER_H_

#include "mmu/types/address.h"
#include "mmu/types/memory_kind.h"

namespace twinroot::mmu {

// Thread-safe. When a call returns, no vCPU uses a translation that was cached before the call, and
// no access that used one is still under way.
class TlbFlusher {
 public:
  virtual ~TlbFlusher() = default;
  // Frames [first, first + count) as the walk of that kind's root indexes them.
  virtual void FlushRange(MemoryKind root, HwGfn first, uint64_t count) = 0;
  virtual void FlushAll() = 0;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TABLES_TLB_FLUSHER_H_
