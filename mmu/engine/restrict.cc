#include "mmu/engine/restrict.h"

#include <algorithm>
#include <cassert>
#include <vector>

#include "mmu/engine/zap.h"
#include "mmu/tables/cursor.h"

namespace twinroot::mmu {

void Restrict(const Turn& turn, TablePool& pool, EntryChange& change, const Root& root,
              GfnRange range, Access keep, FlushBatch& batch) {
  assert(root.external == nullptr);
  HwGfn first{~uint64_t{0}};
  HwGfn end{0};
  std::vector<GfnRange> gone;  // after the walk: a zap may unlink the table that the cursor is in
  for (Cursor at(turn, pool, root, range); at.valid();) {
    if (at.returned()) {
      at.Next();
      continue;
    }
    const EptEntry entry = EntryChange::Settle(turn, at.slot());
    const SlotState state = StateOf(entry, at.level());
    if (state == SlotState::kLink && at.Descend(entry)) continue;
    if (state == SlotState::kLeaf) {
      const uint64_t frames = FramesPerEntry(at.level());
      bool goes = !at.inside();
      if (!goes) {
        const EptEntry last = change.KeepRights(turn, at.slot(), at.level(), keep);
        if (StateOf(last, at.level()) != SlotState::kLeaf) continue;  // a fault has split it
        const Restriction restriction = RestrictionOf(last, keep);
        goes = restriction == Restriction::kGone;
        if (restriction == Restriction::kInPlace) {
          first = std::min(first, at.frame());
          end = std::max(end, at.frame() + frames);
        }
      }
      if (goes) gone.push_back(Intersection({root.GfnOf(at.frame()), frames}, range));
    }
    at.Next();
  }
  if (first < end) batch.AddFlush(root, first, end - first);
  for (const GfnRange& leaf : gone) Zap(turn, pool, change, root, leaf, batch);
}

}  // namespace twinroot::mmu
