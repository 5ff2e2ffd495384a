// Zap: takes leaves out of a root. Content, attributes and backing are not its business.
//
// A leaf that reaches over the ends of the range goes whole: its other frames fault again. Tables
// that end up empty are unlinked and retired into the batch.
#ifndef TWINROOT_MMU_ENGINE_ZAP_H_
#define TWINROOT_MMU_ENGINE_ZAP_H_

#include "mmu/tables/entry_change.h"
#include "mmu/tables/flush_batch.h"
#include "mmu/tables/mmu_lock.h"
#include "mmu/tables/root.h"
#include "mmu/tables/table_pool.h"
#include "mmu/types/gfn_range.h"

namespace twinroot::mmu {

// Nothing is flushed yet when it returns: the batch must be finished.
void Zap(const MmuLock::Exclusive& lock, TablePool& pool, EntryChange& change, const Root& root,
         GfnRange range, FlushBatch& batch);

// Only unlinks the empty tables on the way to the range: what a map that failed leaves behind.
void PruneEmptyTables(const MmuLock::Exclusive& lock, TablePool& pool, EntryChange& change,
                      const Root& root, GfnRange range, FlushBatch& batch);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_ENGINE_ZAP_H_
