#include "mmu/vm/page_sizes.h"

#include <optional>

#include "mmu/engine/collapse.h"
#include "mmu/tables/cursor.h"
#include "mmu/vm/attribute_change.h"
#include "mmu/vm/chunks.h"
#include "mmu/vm/leaf_choice.h"
#include "mmu/vm/zap_all.h"

namespace twinroot::mmu {
namespace {

// The large leaf that a fault would make now.
std::optional<EptEntry> LargeLeafNow(const Turn& turn, const AddressSpaceState& vm,
                                     const Root& root, Gfn gfn, Level level) {
  return LargeLeaf(vm, turn, root, gfn, level, vm.attributes.Get(turn, gfn),
                   [&](Level at) { return vm.attributes.UniformAt(turn, gfn, at); });
}

bool TableStands(const Turn& turn, TablePool& pool, const Root& root, Gfn first, Level level) {
  Cursor at(turn, pool, root, LeafRange(first, level));
  while (StateOf(at.entry(), at.level()) == SlotState::kLink) {
    if (at.level() == level) return true;
    if (!at.Descend(at.entry())) return false;
  }
  return false;
}

}  // namespace

void SplitAlias(const Turn& turn, AddressSpaceState& vm, const Root& alias, GfnRange range,
                Level target, VmCount reason, SplitResult& result, OnKept on_kept) {
  // As many as the range can need: a PD, and a PT for each of its 2M.
  MakeRoom(turn, vm, range.count / FramesPerEntry(Level::k2M) + 2);
  SplitCounts counts;
  SplitRange(turn, *vm.env.pool, vm.change, alias, range, target, counts, on_kept);
  result.split_1g += counts.from_1g;
  result.split_2m += counts.from_2m;
  result.kept += counts.kept;
  if (const uint64_t split = counts.from_1g + counts.from_2m; split != 0) {
    vm.counts.Add(reason, split);
  }
  if (counts.kept != 0) vm.counts.Add(VmCount::kSplitKeptForTables, counts.kept);
}

absl::StatusOr<uint64_t> RecoverChunk(const Turn& turn, AddressSpaceState& vm, GfnRange chunk,
                                      VmCount reason) {
  FlushBatch batch = vm.NewBatch();
  uint64_t collapsed = 0;
  ForEachAlias(vm, [&](const Root& alias) {
    collapsed += CollapseRange(
        turn, *vm.env.pool, vm.change, alias, chunk,
        [&](Gfn gfn, Level level) { return LargeLeafNow(turn, vm, alias, gfn, level); }, batch);
  });
  vm.counts.Add(reason, collapsed);
  if (absl::Status status = batch.Finish(turn); !status.ok()) return status;
  return collapsed;
}

uint64_t RecoverLeaf(const Turn& turn, AddressSpaceState& vm, Gfn first, Level level,
                     MemoryKind kind, FlushBatch& batch) {
  uint64_t collapsed = 0;
  for (const Root& alias : vm.roots.AliasesOf(kind)) {
    if (!TableStands(turn, *vm.env.pool, alias, first, level)) continue;
    // Asked here, for a walk that finds no answer at 1G would look into every 2M below.
    const std::optional<EptEntry> leaf = LargeLeafNow(turn, vm, alias, first, level);
    if (!leaf) continue;
    collapsed += CollapseRange(
        turn, *vm.env.pool, vm.change, alias, LeafRange(first, level),
        [&](Gfn, Level at) { return at == level ? leaf : std::nullopt; }, batch);
  }
  return collapsed;
}

absl::StatusOr<SplitResult> SplitPages(AddressSpaceState& vm, GfnRange range, Level target,
                                       VmCount reason) {
  {
    const Turn turn(vm.turn_mutex);
    if (absl::Status status = CheckRange(vm, turn, range); !status.ok()) return status;
  }
  SplitResult result;
  const absl::Status status = ForEachChunk(vm, range, [&](const Turn& turn, GfnRange chunk) {
    ForEachAlias(
        vm, [&](const Root& alias) { SplitAlias(turn, vm, alias, chunk, target, reason, result); });
    if (vm.shadow != nullptr) vm.shadow->Split(turn, chunk, target, reason, result);
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return result;
}

absl::StatusOr<RecoverResult> RecoverPages(AddressSpaceState& vm, GfnRange range, VmCount reason) {
  RecoverResult result;
  const absl::Status status = ForEachChunk(vm, range, [&](const Turn& turn, GfnRange chunk) {
    const absl::StatusOr<uint64_t> recovered = RecoverChunk(turn, vm, chunk, reason);
    if (!recovered.ok()) return recovered.status();
    result.collapsed += *recovered;
    if (vm.shadow != nullptr) result.collapsed += vm.shadow->Recover(turn, chunk, reason);
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return result;
}

}  // namespace twinroot::mmu
