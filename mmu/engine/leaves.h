// Looking at every leaf of a range, changing nothing.
#ifndef TWINROOT_MMU_ENGINE_LEAVES_H_
#define TWINROOT_MMU_ENGINE_LEAVES_H_

#include "mmu/tables/cursor.h"

namespace twinroot::mmu {

// `function(Gfn first, Level level, EptEntry leaf)`: for each leaf with a frame in the range; the
// first and the last may reach over its ends.
template <typename Function>
void ForEachLeaf(const MmuRead& read, TablePool& pool, const Root& root, GfnRange range,
                 const Function& function) {
  for (Cursor at(read, pool, root, range); at.valid();) {
    const EptEntry entry = at.entry();
    const SlotState state = StateOf(entry, at.level());
    if (!at.returned() && state == SlotState::kLink && at.Descend(entry)) continue;
    if (!at.returned() && state == SlotState::kLeaf) {
      function(root.GfnOf(at.frame()), at.level(), entry);
    }
    at.Next();
  }
}

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_ENGINE_LEAVES_H_
