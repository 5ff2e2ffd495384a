// What is behind a frame of the guest, as shadow leaves need it. Declared here, implemented by
// mmu/vm over memslots, attributes and page sources.
#ifndef TWINROOT_MMU_SHADOW_SHADOW_BACKING_H_
#define TWINROOT_MMU_SHADOW_SHADOW_BACKING_H_

#include <optional>

#include "mmu/tables/epoch.h"
#include "mmu/types/access.h"
#include "mmu/types/address.h"
#include "mmu/types/level.h"

namespace twinroot::mmu {

class ShadowBacking {
 public:
  struct Page {
    Pfn pfn;  // of the frame itself
    // The largest leaf around it that memory, attributes and dirty log allow; of no effect on what
    // the guest's own tables say.
    Level largest = Level::k4K;
    Access allowed = Access::All();
    bool withhold_write = false;  // until the write is logged
    bool withhold_fetch = false;  // from large leaves
  };
  virtual ~ShadowBacking() = default;
  // Nullopt: nothing that could be mapped. Never blocks.
  virtual std::optional<Page> At(const Turn&, Gfn gfn) = 0;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_SHADOW_SHADOW_BACKING_H_
