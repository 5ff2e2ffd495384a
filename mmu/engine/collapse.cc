#include "mmu/engine/collapse.h"

#include "mmu/engine/prune.h"
#include "mmu/tables/cursor.h"

namespace twinroot::mmu {
namespace {

// What is mapped below a link, as far as it was looked at.
struct BelowLink {
  uint64_t leaves = 0;  // at least; 0: nothing is mapped
  bool all = true;      // every entry holds a leaf
};

BelowLink LookBelow(const Turn& turn, const TablePool& pool, const EntrySlot* slots, Level level) {
  BelowLink below;
  for (uint64_t i = 0; i < kEntriesPerTable; ++i) {
    const EptEntry entry = slots[i].Load();
    if (StateOf(entry, level) == SlotState::kLeaf) {
      ++below.leaves;
    } else {
      below.all = false;
      if (StateOf(entry, level) != SlotState::kLink || below.leaves > 0) continue;
      // Zaps and faults may leave tables with nothing in them.
      const EntrySlot* const child = pool.SlotsAt(entry.address());
      if (child != nullptr && !HoldsNothing(turn, pool, child, Below(level))) ++below.leaves;
    }
  }
  return below;
}

}  // namespace

uint64_t CollapseRange(const Turn& turn, TablePool& pool, EntryChange& change, const Root& root,
                       GfnRange range, const LeafFor& leaf_for, FlushBatch& batch) {
  uint64_t collapsed = 0;
  for (Cursor at(turn, pool, root, range); at.valid();) {
    const EptEntry entry = at.entry();
    if (at.returned() || StateOf(entry, at.level()) != SlotState::kLink) {
      at.Next();
      continue;
    }
    Table* const child = pool.At(entry.address());
    const bool large = at.level() == Level::k2M || at.level() == Level::k1G;
    if (child != nullptr && large && at.inside()) {
      const BelowLink below = LookBelow(turn, pool, child->slots, Below(at.level()));
      const Gfn gfn = root.GfnOf(at.frame());
      std::optional<EptEntry> leaf;
      if (below.leaves > 0) leaf = leaf_for(gfn, at.level());
      if (leaf && root.external != nullptr &&
          !(below.all && root.external->Merge(gfn, at.level()).ok())) {
        leaf.reset();
      }
      if (leaf) {
        // A and D of what stood below come once it is flushed: until then processors may set them
        // there.
        change.Cover(turn, root, at.slot(), at.level(), *leaf);
        batch.AddCovered(root, at.frame(), at.level(), at.slot(), *child);
        ++collapsed;
        at.Next();
        continue;
      }
    }
    if (!at.Descend(entry)) at.Next();
  }
  return collapsed;
}

}  // namespace twinroot::mmu
