// Eager splitting of shadow huge pages, outside of any fault: what the guest granted is known from
// the shadowed translations (B4, B5), so no guest table is read.
//
// Under the Turn. Tables are taken from the pool before a leaf is touched. The translations stay
// the same, so nothing is flushed but where a child page that stood already maps less (B8).
#ifndef TWINROOT_MMU_SHADOW_SHADOW_SPLIT_H_
#define TWINROOT_MMU_SHADOW_SHADOW_SPLIT_H_

#include <cstddef>
#include <cstdint>
#include <optional>

#include "mmu/shadow/shadow_tables.h"
#include "mmu/types/gfn_range.h"
#include "mmu/types/level.h"

namespace twinroot::mmu {

struct ShadowSplitResult {
  uint64_t split_1g = 0, split_2m = 0;
  uint64_t kept_for_tables = 0;  // no table in the pool (B9)
  uint64_t kept_for_room = 0;    // the cap of shadow pages, and all are in use (B9)
  uint64_t flushes = 0;
  // Where to go on: the budget was used up. Nullopt: the range is done.
  std::optional<Gfn> next;
};

// Splits every leaf above `target` that touches the range, at most `budget` of them. Leaves that
// find no table stay as they are, are counted, and are asked for again by the next call.
ShadowSplitResult SplitShadowPages(const Turn& turn, ShadowTables& tables, GfnRange range,
                                   Level target, size_t budget);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_SHADOW_SHADOW_SPLIT_H_
