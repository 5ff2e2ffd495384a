#include "mmu/engine/map.h"

#include <utility>

#include "mmu/engine/make_entry.h"
#include "mmu/engine/max_level.h"
#include "mmu/tables/cursor.h"

namespace twinroot::mmu {
namespace {

// The leaf of `level` around the request's frame.
struct Leaf {
  Gfn gfn;
  Pfn pfn;
};
Leaf LeafAround(const MapRequest& request, Level level) {
  const uint64_t offset = request.gfn.value % FramesPerEntry(level);
  return {request.gfn - offset, request.pfn - offset};
}

// A leaf stands here. Its owner may have dropped the external side on its own: set it again.
MapOutcome Refresh(const Root& root, const MapRequest& request, Level level, EptEntry entry) {
  if (root.external != nullptr) {
    absl::Status set = root.external->Set(LeafAround(request, level).gfn, level, entry.access(),
                                          PfnOf(entry.address()));
    if (!set.ok()) return ExternalFailed{std::move(set)};
  }
  return AlreadyMapped{level};
}

MapOutcome Install(const MmuLock::Shared& lock, EntryChange& change, const Root& root,
                   const MapRequest& request, Table& table, uint64_t index) {
  const Level level = table.level();
  const Leaf leaf = LeafAround(request, level);
  const EptEntry entry = MakeLeaf(leaf.pfn, level, request.access);
  if (root.external == nullptr) {
    if (change.SetLeaf(lock, table, index, entry) == ChangeResult::kRaced) return Raced{};
    return Mapped{level};
  }
  if (change.Freeze(lock, table, index) == ChangeResult::kRaced) return Raced{};
  absl::Status set = root.external->Set(leaf.gfn, level, request.access, leaf.pfn);
  if (!set.ok()) {
    change.Restore(lock, table, index);
    return ExternalFailed{std::move(set)};
  }
  change.Publish(lock, table, index, entry);
  return Mapped{level};
}

}  // namespace

MapOutcome Map(const MmuLock::Shared& lock, TablePool& pool, EntryChange& change, const Root& root,
               const MapRequest& request, PreloadedTables& preload) {
  Cursor at(lock, pool, root, GfnRange{request.gfn, 1});
  while (true) {
    const EptEntry entry = at.entry();
    if (entry == kFrozenEntry) return Raced{};
    if (entry.present()) {
      if (entry.IsLeaf(at.level())) return Refresh(root, request, at.level(), entry);
      Table* child = at.Child(entry);
      if (child == nullptr) return BrokenTables{entry.address()};
      at.Descend(*child);
      continue;
    }
    if (at.level() <= request.level) {
      return Install(lock, change, root, request, at.table(), at.index());
    }
    if (preload.empty()) {
      return NeedTables{static_cast<size_t>(at.level()) - static_cast<size_t>(request.level)};
    }
    Table& child = preload.Take();
    if (change.Link(lock, at.table(), at.index(), child, request.gfn) == ChangeResult::kRaced) {
      // Somebody else linked one: the next look at the slot finds it.
      preload.Return(child);
      continue;
    }
    at.Descend(child);
  }
}

}  // namespace twinroot::mmu
