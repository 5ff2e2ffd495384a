// Collapse: a table becomes one large leaf in place, without a moment in which its memory is not
// mapped (F5).
//
// The leaf covers the link first; the table below it then waits for faults that are still inside,
// and for the flush, before its leaves leave the books and its page is freed (FlushBatch).
#ifndef TWINROOT_MMU_ENGINE_COLLAPSE_H_
#define TWINROOT_MMU_ENGINE_COLLAPSE_H_

#include <functional>
#include <optional>

#include "mmu/tables/entry_change.h"
#include "mmu/tables/flush_batch.h"
#include "mmu/tables/root.h"
#include "mmu/tables/table_pool.h"
#include "mmu/types/gfn_range.h"

namespace twinroot::mmu {

// The leaf that may stand for all frames from `gfn` on at `level`; nullopt: a table must stay.
using LeafFor = std::function<std::optional<EptEntry>(Gfn gfn, Level level)>;

// Replaces every link that lies in the range and for which `leaf_for` has a leaf, the largest
// first; only where leaves are mapped below. Roots with an external table: only what that can
// merge, if all 512 are there. Returns how many. The batch is to be finished by the caller.
uint64_t CollapseRange(const Turn& turn, TablePool& pool, EntryChange& change, const Root& root,
                       GfnRange range, const LeafFor& leaf_for, FlushBatch& batch);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_ENGINE_COLLAPSE_H_
