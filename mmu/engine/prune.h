// Prune: takes out tables that hold nothing. A zap that clears few leaves of a table does not look
// whether it was the last (zap.h), and a fault that lost its race may have linked one for nothing:
// such a table is found when a large leaf wants its place, or when tables run out.
//
// Runs beside faults: a table is sealed first, so nobody fills what is taken away. Stale MMIO marks
// are nothing; they go.
#ifndef TWINROOT_MMU_ENGINE_PRUNE_H_
#define TWINROOT_MMU_ENGINE_PRUNE_H_

#include <cstdint>

#include "mmu/tables/cursor.h"
#include "mmu/tables/entry_change.h"
#include "mmu/tables/flush_batch.h"

namespace twinroot::mmu {

// No leaf stands in a table of `level`, nor below it. The look begins at entry `from`, where one is
// most likely.
bool HoldsNothing(const MmuRead&, const TablePool& pool, const EntrySlot* slots, Level level,
                  uint64_t from = 0);

// The way to `gfn` leads, below `level`, into a table that holds nothing: a leaf of `level` could
// stand there but for it.
bool EmptyTableAt(const MmuRead&, const TablePool& pool, const Root& root, Gfn gfn, Level level);

// Seals the table below the cursor's entry and unlinks it. False: it is not empty. `from`: where
// an entry is most likely.
bool UnlinkEmpty(const Turn& turn, TablePool& pool, EntryChange& change, const Root& root,
                 const Cursor& at, uint64_t from, FlushBatch& batch);

// Every table of the range that holds nothing, retired into the batch, which is to be finished.
// Returns how many.
uint64_t Prune(const Turn& turn, TablePool& pool, EntryChange& change, const Root& root,
               GfnRange range, FlushBatch& batch);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_ENGINE_PRUNE_H_
