#include "mmu/engine/collapse.h"

#include "mmu/tables/cursor.h"

namespace twinroot::mmu {
namespace {

// What is mapped below a link, as far as it was looked at.
struct BelowLink {
  uint64_t leaves = 0;
  bool all = true;  // every entry holds a leaf
  EptEntry flags;   // A and D of all leaves together
};

BelowLink LookBelow(const EntrySlot* slots, Level level) {
  BelowLink below;
  for (uint64_t i = 0; i < kEntriesPerTable; ++i) {
    const EptEntry entry = slots[i].Load();
    if (StateOf(entry, level) == SlotState::kLeaf) {
      ++below.leaves;
      below.flags = below.flags.WithFlagsOf(entry);
    } else {
      below.all = false;
      // A table below that: something is mapped there, or was.
      if (StateOf(entry, level) == SlotState::kLink) ++below.leaves;
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
      const BelowLink below = LookBelow(child->slots, Below(at.level()));
      const Gfn gfn = root.GfnOf(at.frame());
      std::optional<EptEntry> leaf;
      if (below.leaves > 0) leaf = leaf_for(gfn, at.level());
      if (leaf && root.external != nullptr &&
          !(below.all && root.external->Merge(gfn, at.level()).ok())) {
        leaf.reset();
      }
      if (leaf) {
        change.Cover(turn, root, at.slot(), at.level(), leaf->WithFlagsOf(below.flags));
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
