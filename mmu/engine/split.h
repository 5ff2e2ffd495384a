// Split: a leaf becomes a table of 512 leaves of the level below, with the same translations (F4).
//
// Nothing is flushed: a processor that still knows the large page finds the same memory there.
// Children get the leaf's rights, its A and D bits, and what was withheld for the page's size
// (B10). The table is filled before it is linked.
#ifndef TWINROOT_MMU_ENGINE_SPLIT_H_
#define TWINROOT_MMU_ENGINE_SPLIT_H_

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "mmu/tables/entry_change.h"
#include "mmu/tables/flush_batch.h"
#include "mmu/tables/root.h"
#include "mmu/tables/table_pool.h"
#include "mmu/types/gfn_range.h"

namespace twinroot::mmu {

// One leaf, by a fault or by the holder of the Turn. kRaced: the slot is no longer `leaf`; the
// child is as it was. The root has no external table.
ChangeResult SplitLeaf(const MmuRead& read, EntryChange& change, const Root& root,
                       const Table& table, EntrySlot& slot, EptEntry leaf, Table& child, Gfn gfn);

struct SplitCounts {
  uint64_t from_1g = 0;
  uint64_t from_2m = 0;
  uint64_t kept = 0;  // leaves that found no table, or whose external table cannot split
};

// Every leaf larger than `target` that has a frame in the range. Takes tables as it goes; a leaf
// that finds none stays, and `on_kept` hears of it.
using OnKept = absl::FunctionRef<void(HwGfn frame, Level level)>;
void SplitRange(const Turn& turn, TablePool& pool, EntryChange& change, const Root& root,
                GfnRange range, Level target, SplitCounts& counts, OnKept on_kept);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_ENGINE_SPLIT_H_
