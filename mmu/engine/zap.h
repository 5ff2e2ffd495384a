// Zap: takes leaves out of one alias of a root. Content, attributes and backing are not its
// business.
//
// Runs beside faults, which its caller holds off in the range (Invalidation). A leaf that reaches
// over the ends of the range goes whole: its other frames fault again. Tables that lost many leaves
// and end up empty are sealed, unlinked and retired into the batch; those that lost few are left as
// they are (prune.h); whole tables of a large range are detached at once.
#ifndef TWINROOT_MMU_ENGINE_ZAP_H_
#define TWINROOT_MMU_ENGINE_ZAP_H_

#include "mmu/tables/entry_change.h"
#include "mmu/tables/flush_batch.h"
#include "mmu/tables/root.h"
#include "mmu/tables/table_pool.h"
#include "mmu/types/gfn_range.h"

namespace twinroot::mmu {

// Nothing is flushed yet when it returns: the batch must be finished. The batch's OnLeaf, if it has
// one, hears of every leaf.
void Zap(const Turn& turn, TablePool& pool, EntryChange& change, const Root& root, GfnRange range,
         FlushBatch& batch);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_ENGINE_ZAP_H_
