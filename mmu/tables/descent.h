// Straight down from a table, along its links, towards one frame: the walk of faults and look-ups.
#ifndef TWINROOT_MMU_TABLES_DESCENT_H_
#define TWINROOT_MMU_TABLES_DESCENT_H_

#include "mmu/tables/epoch.h"
#include "mmu/tables/root.h"
#include "mmu/tables/table_pool.h"

namespace twinroot::mmu {

// The first entry on the way that is no link.
struct Descent {
  EntrySlot* slot;  // null: a link leads outside the pool
  Level level;
  EptEntry entry;  // as it was when the walk came by; that link, if it leads outside
};

// From `slots`, a table of `level`, which the guard or the turn keeps.
inline Descent Descend(const MmuRead&, const TablePool& pool, EntrySlot* slots, Level level,
                       HwGfn frame) {
  // Of the level's index: counted down instead of the level, so that no step multiplies.
  unsigned shift = kIndexBits * (static_cast<unsigned>(level) - 1);
  while (true) {
    EntrySlot* const slot = &slots[frame.value >> shift & (kEntriesPerTable - 1)];
    const EptEntry entry = slot->LoadOrdered();                     // a zap goes this way too
    const bool leads_on = shift != 0 && IsLink(entry, Level::k2M);  // alike at all but the lowest
    if (leads_on) [[likely]] {
      slots = pool.SlotsAt(entry.address());
      if (slots != nullptr) [[likely]] {
        shift -= kIndexBits;
        continue;
      }
    }
    return {leads_on ? nullptr : slot, static_cast<Level>(shift / kIndexBits + 1), entry};
  }
}

inline Descent Descend(const MmuRead& read, const TablePool& pool, const Root& root, Gfn gfn) {
  return Descend(read, pool, root.table->slots, root.table->level(), root.FrameOf(gfn));
}

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TABLES_DESCENT_H_
