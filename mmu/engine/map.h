// Map: makes one leaf stand where a fault wants it, or says what stands there instead.
//
// Runs inside an EpochGuard, many at a time. 1. A table is named before it is linked. 2. Tables
// come from the preload: nothing allocates here. 3. A leaf is published only if `still_valid` says,
// after the slot was frozen, that what the fault read still holds. 4. With an external table behind
// the root the slot is left frozen, for the caller to tell the external table outside the guard,
// once for each leaf, and then to publish (E1).
#ifndef TWINROOT_MMU_ENGINE_MAP_H_
#define TWINROOT_MMU_ENGINE_MAP_H_

#include <optional>
#include <variant>

#include "mmu/engine/make_entry.h"
#include "mmu/engine/max_level.h"
#include "mmu/tables/descent.h"
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

// The usual map, straight down: tables stand and nothing is in the slot. `leaf_at(Level)`: the leaf
// for a slot of that level, or kEmptyEntry. Nullopt: it was not so, and nothing has changed.
template <typename LeafAt, typename StillValid>
std::optional<Level> MapEmpty(const EpochGuard& guard, const TablePool& pool, EntryChange& change,
                              const Root& root, Gfn gfn, const LeafAt& leaf_at,
                              const StillValid& still_valid) {
  const Descent at = Descend(guard, pool, root, gfn);
  if (at.slot == nullptr || at.entry != kEmptyEntry) return {};
  const EptEntry leaf = leaf_at(at.level);
  if (leaf == kEmptyEntry) return {};
  if (change.Freeze(guard, *at.slot, kEmptyEntry) == ChangeResult::kRaced) return {};
  if (!still_valid(LeafRange(gfn, at.level))) [[unlikely]] {
    change.Restore(*at.slot, kEmptyEntry);
    return {};
  }
  change.Publish(root, *at.slot, at.level, kEmptyEntry, leaf);
  return at.level;
}

// `still_valid(GfnRange)`: nothing that the fault read for these frames has changed.
template <typename StillValid>
MapOutcome Map(const EpochGuard& guard, TablePool& pool, EntryChange& change, const Root& root,
               const MapRequest& request, PreloadedTables& preload, const StillValid& still_valid) {
  const HwGfn frame = root.FrameOf(request.gfn);
  Descent at = Descend(guard, pool, root, request.gfn);
  while (true) {
    if (at.slot == nullptr) return BrokenTables{at.entry.address()};
    const SlotState state = StateOf(at.entry, at.level);
    if (state == SlotState::kFrozen) return Raced{};
    if (state == SlotState::kLeaf) {
      if (!at.entry.access().Includes(request.access)) {
        return LeafInTheWay{at.slot, &pool.TableOf(*at.slot), at.level, at.entry};
      }
      // Its owner may have dropped the external side by himself: tell it again. A right that nobody
      // withholds any more comes back by the way.
      if (root.external != nullptr) {
        const LeafRequest& wish = request.leaf;
        const bool gives_write = wish.allowed.write() && !wish.withhold_write && MayWrite(at.entry);
        return Install(guard, change, root, *at.slot, request.gfn, at.level, at.entry,
                       gives_write ? WithWrite(at.entry) : at.entry, still_valid);
      }
      return AlreadyMapped{at.level};
    }
    // Empty, or an MMIO mark.
    if (at.level <= request.level) {
      const Pfn first = request.pfn - request.gfn.value % FramesPerEntry(at.level);
      return Install(guard, change, root, *at.slot, request.gfn, at.level, at.entry,
                     MakeLeaf(first, at.level, request.leaf), still_valid);
    }
    if (preload.empty()) {
      return NeedTables{static_cast<size_t>(at.level) - static_cast<size_t>(request.level)};
    }
    Table& table = pool.TableOf(*at.slot);
    Table& child = preload.Take();
    if (change.Link(guard, root, table, *at.slot, at.entry, child, request.gfn) ==
        ChangeResult::kDone) {
      // Known to this thread even if it is taken out again at once.
      at = Descend(guard, pool, child.slots, Below(at.level), frame);
    } else {
      // Somebody else linked one, or is about to put something else there.
      preload.Return(child);
      at = Descend(guard, pool, table.slots, at.level, frame);
    }
  }
}

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_ENGINE_MAP_H_
