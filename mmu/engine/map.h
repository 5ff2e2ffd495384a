// Map: makes one leaf stand where a fault wants it, or says what stands there instead.
//
// Runs inside an EpochGuard, many at a time. 1. A table is named before it is linked. 2. Tables
// come from the preload: nothing allocates here. 3. A leaf is published only if `still_valid` says,
// after the slot was frozen, that what the fault read still holds. 4. With an external table behind
// the root the slot is left frozen, for the caller to tell the external table outside the guard,
// once for each leaf, and then to publish (E1).
#ifndef TWINROOT_MMU_ENGINE_MAP_H_
#define TWINROOT_MMU_ENGINE_MAP_H_

#include <variant>

#include "mmu/engine/make_entry.h"
#include "mmu/engine/max_level.h"
#include "mmu/tables/entry_change.h"
#include "mmu/tables/table_pool.h"

namespace twinroot::mmu {

struct MapRequest {
  Gfn gfn;
  Pfn pfn;        // the frame of gfn itself
  Level level;    // at most; smaller where a table stands already
  Access access;  // what the fault needs; part of leaf.allowed
  LeafRequest leaf;
};

struct Mapped {
  Level level;
};  // this call made the leaf
// A leaf that grants what is needed was there.
struct AlreadyMapped {
  Level level;
};
// A leaf stands there that does not grant it.
struct LeafInTheWay {
  EntrySlot* slot;
  const Table* table;
  Level level;
  EptEntry leaf;
};
struct Raced {};  // somebody is changing the slot, or what was read: try again later
struct NeedTables {
  size_t count;
};  // no leaf was made; preload so many and call again
// This thread holds the slot frozen: Set in the external table, then Publish `leaf` or Restore
// `before`.
struct FrozenSlot {
  EntrySlot* slot;
  Gfn gfn;  // of the leaf
  Level level;
  EptEntry before;
  EptEntry leaf;
};
struct BrokenTables {
  Hpa table;
};  // a link that leads outside the pool
using MapOutcome =
    std::variant<Mapped, AlreadyMapped, LeafInTheWay, Raced, NeedTables, FrozenSlot, BrokenTables>;

// Freezes the slot for `leaf`, looks whether it may still be published, and publishes it.
template <typename StillValid>
MapOutcome Install(const EpochGuard& guard, EntryChange& change, const Root& root, EntrySlot& slot,
                   Gfn gfn, Level level, EptEntry before, EptEntry leaf,
                   const StillValid& still_valid) {
  if (change.Freeze(guard, slot, before) == ChangeResult::kRaced) return Raced{};
  if (!still_valid(LeafRange(gfn, level))) {
    change.Restore(slot, before);
    return Raced{};
  }
  if (root.external != nullptr) {
    return FrozenSlot{&slot, LeafRange(gfn, level).first, level, before, leaf};
  }
  change.Publish(root, slot, level, before, leaf);
  return Mapped{level};
}

// `still_valid(GfnRange)`: nothing that the fault read for these frames has changed.
template <typename StillValid>
MapOutcome Map(const EpochGuard& guard, TablePool& pool, EntryChange& change, const Root& root,
               const MapRequest& request, PreloadedTables& preload, const StillValid& still_valid) {
  const HwGfn frame = root.FrameOf(request.gfn);
  EntrySlot* slots = root.table->slots;
  Hpa table = root.table->hpa;
  for (Level level = root.table->level();; level = Below(level)) {
    EntrySlot& slot = slots[EptIndex(frame, level)];
    const EptEntry entry = slot.Load();
    if (IsLink(entry, level)) [[likely]] {
      table = entry.address();
      slots = pool.SlotsAt(table);
      if (slots == nullptr) return BrokenTables{table};
      continue;
    }
    switch (StateOf(entry, level)) {
      case SlotState::kFrozen:
        return Raced{};
      case SlotState::kLeaf:
        if (!entry.access().Includes(request.access)) {
          return LeafInTheWay{&slot, pool.At(table), level, entry};
        }
        // Its owner may have dropped the external side by himself: tell it again.
        if (root.external != nullptr) {
          return Install(guard, change, root, slot, request.gfn, level, entry, entry, still_valid);
        }
        return AlreadyMapped{level};
      case SlotState::kEmpty:
      case SlotState::kMmio:
        if (level <= request.level) {
          const Pfn first = request.pfn - request.gfn.value % FramesPerEntry(level);
          return Install(guard, change, root, slot, request.gfn, level, entry,
                         MakeLeaf(first, level, request.leaf), still_valid);
        }
        if (preload.empty()) {
          return NeedTables{static_cast<size_t>(level) - static_cast<size_t>(request.level)};
        }
        {
          Table& child = preload.Take();
          if (change.Link(guard, root, *pool.At(table), slot, entry, child, request.gfn) ==
              ChangeResult::kRaced) {
            // Somebody else linked one, or is about to put something else there.
            preload.Return(child);
            level = Above(level);
            continue;
          }
          // Known to this thread even if it is taken out again at once.
          table = child.hpa;
        }
        break;
      case SlotState::kLink:
        table = entry.address();
        break;
    }
    slots = pool.SlotsAt(table);
    if (slots == nullptr) return BrokenTables{table};
  }
}

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_ENGINE_MAP_H_
