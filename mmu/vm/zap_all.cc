#include "mmu/vm/zap_all.h"

#include <algorithm>

#include "mmu/engine/prune.h"
#include "mmu/tables/flush_batch.h"
#include "mmu/vm/invalidation.h"

namespace twinroot::mmu {
namespace {

// A fault that ran out of tables takes down so many at least: the next ones find some free.
constexpr size_t kTablesForFault = 32;

absl::Status RemoveFromExternal(const Turn& turn, AddressSpaceState& vm, ExternalTables& external) {
  absl::Status first_error;
  for (const Memslot& slot : vm.slots.all(turn)) {
    absl::Status removed = external.Remove(slot.range);
    if (!removed.ok()) removed = external.Remove(slot.range);
    first_error.Update(removed);
  }
  return first_error;
}

}  // namespace

absl::Status ZapAll(AddressSpaceState& vm) {
  const Turn turn(vm.turn_mutex);
  if (absl::Status status = vm.bugs.Check(); !status.ok()) return status;
  // Every leaf that a fault was about to publish stands and is counted; no external Set is under
  // way. Faults that look from here on publish nothing.
  const Quiet quiet(turn, vm);
  if (vm.shadow != nullptr) vm.shadow->ZapAll(turn);
  vm.limbo.DetachAll(turn, vm.roots);
  if (vm.env.flusher != nullptr) vm.env.flusher->FlushAll();
  vm.counts.Add(VmCount::kFlushFull);
  // What processors marked dirty in the leaves is known nowhere else: it cannot wait.
  if (const DirtyLog* log = vm.log.load(); log != nullptr && !log->withholds_write()) {
    const auto mark_dirty = [log](Gfn gfn, Level level, EptEntry leaf) {
      if (leaf.dirty()) log->MarkRange({gfn, FramesPerEntry(level)});
    };
    while (vm.limbo.TakeDown(turn, vm.env.pool->pages(), mark_dirty) != 0) {
    }
  }
  absl::Status status;
  for (const MemoryKind kind : kAllKinds) {
    if (!vm.roots.Has(kind) || vm.roots.Of(kind).external == nullptr) continue;
    status.Update(RemoveFromExternal(turn, vm, *vm.roots.Of(kind).external));
  }
  return CheckRemoved(status, vm.bugs);
}

size_t ReclaimTables(AddressSpaceState& vm, size_t max_tables) {
  const Turn turn(vm.turn_mutex);
  size_t taken_down = vm.limbo.TakeDown(turn, max_tables);
  if (taken_down == 0 && vm.shadow != nullptr) taken_down = vm.shadow->Reclaim(turn, max_tables);
  return taken_down != 0 ? taken_down : PruneAll(turn, vm);
}

size_t PruneAll(const Turn& turn, AddressSpaceState& vm) {
  const uint64_t left = vm.counts.Sum(VmCount::kTablesLeft);
  if (left == vm.tables_left_seen) return 0;
  vm.tables_left_seen = left;
  FlushBatch batch = vm.NewBatch();
  size_t pruned = 0;
  for (const MemoryKind kind : kAllKinds) {
    for (const Root& alias : vm.roots.AliasesOf(kind)) {
      pruned += Prune(turn, *vm.env.pool, vm.change, alias, {Gfn(0), vm.gfn_limit.value}, batch);
    }
  }
  // No leaf was removed, so no external table has a say.
  return batch.Finish(turn).ok() ? pruned : 0;
}

void PruneIfIdle(AddressSpaceState& vm, const Root& root, GfnRange range) {
  if (!vm.turn_mutex.TryLock()) return;
  const Turn turn(vm.turn_mutex, MutexLock::kTaken);
  FlushBatch batch = vm.NewBatch();
  Prune(turn, *vm.env.pool, vm.change, root, range, batch);
  // Tables only: no external table has a say, so it cannot fail.
  batch.Finish(turn).IgnoreError();
}

void MakeRoom(const Turn& turn, AddressSpaceState& vm, size_t tables) {
  vm.limbo.TakeDown(turn, tables);
  const TablePool::Stats pool = vm.env.pool->stats();
  if (pool.pages - pool.used < tables) PruneAll(turn, vm);
}

absl::Status PreloadTables(AddressSpaceState& vm, size_t count, PreloadedTables& preload) {
  while (true) {
    absl::Status loaded = vm.env.pool->Preload(count, preload);
    if (loaded.ok() || !absl::IsResourceExhausted(loaded)) return loaded;
    size_t taken_down;
    {
      // In turn even if nothing waits: somebody may be taking the last ones down right now.
      const Turn turn(vm.turn_mutex);
      taken_down = vm.limbo.TakeDown(turn, std::max(count, kTablesForFault));
      if (taken_down == 0) taken_down = PruneAll(turn, vm);
    }
    // Others may take what was reclaimed; but each round takes something down.
    if (taken_down == 0) return vm.env.pool->Preload(count, preload);
  }
}

}  // namespace twinroot::mmu
