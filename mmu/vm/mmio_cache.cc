#include "mmu/vm/mmio_cache.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "mmu/engine/max_level.h"
#include "mmu/hw/mmio_entry.h"
#include "mmu/tables/cursor.h"

namespace twinroot::mmu {
namespace {

EptEntry MarkNow(const AddressSpaceState& vm) {
  return MmioEntry::Make(MmioEntryForm::kMisconfigured,
                         vm.mmio_generation.load(std::memory_order_acquire));
}

// A larger one might reach into another shard of the invalidation sequence, or another alias.
constexpr Level kLargestMark = Level::k1G;

Failed Bug(AddressSpaceState& vm, const std::string& what) {
  vm.bugs.ReportBug(what);
  return Failed{vm.bugs.Check()};
}

}  // namespace

std::optional<NeedTables> MarkMmio(AddressSpaceState& vm, const EpochGuard& guard, const Root& root,
                                   Gfn gfn, PreloadedTables& preload,
                                   const std::function<bool(GfnRange)>& still_valid) {
  // Processors do not walk our tables where an external table stands.
  if (vm.config.mmio_caching == MmioCaching::kNone || root.external != nullptr) return {};
  // What is done to all memory does not reach further.
  if (gfn >= vm.gfn_limit) return {};
  // Of what was true before the check: a change after it begins a new generation.
  const EptEntry mark = MarkNow(vm);
  Cursor at(guard, *vm.env.pool, root, GfnRange{gfn, 1});
  while (true) {
    const EptEntry entry = at.entry();
    const SlotState state = StateOf(entry, at.level());
    if (state == SlotState::kLink) {
      if (!at.Descend(entry)) return {};
      continue;
    }
    if (state == SlotState::kFrozen || state == SlotState::kLeaf || entry == mark) return {};
    const GfnRange range = LeafRange(gfn, at.level());
    if (at.level() <= kLargestMark && !vm.slots.Touches(guard, range)) {
      if (vm.change.Freeze(guard, at.slot(), entry) == ChangeResult::kRaced) return {};
      vm.change.PublishMark(at.slot(), still_valid(range) ? mark : kEmptyEntry);
      return {};
    }
    if (at.level() == Level::k4K) return {};
    if (preload.empty()) return NeedTables{static_cast<size_t>(at.level()) - 1};
    Table& child = preload.Take();
    // Lost against somebody else: the next look goes down his way.
    if (vm.change.Link(guard, root, *vm.env.pool->At(vm.env.pool->AddressOf(at.slots())), at.slot(),
                       entry, child, gfn) == ChangeResult::kRaced) {
      preload.Return(child);
    }
  }
}

MmioOutcome HandleMisconfiguration(AddressSpaceState& vm, Gpa gpa) {
  if (vm.bugs.bugged()) return Failed{vm.bugs.Check()};
  const GpaLayout& layout = vm.config.layout;
  if (absl::Status reserved = layout.CheckReserved(gpa); !reserved.ok()) {
    return Failed{std::move(reserved)};
  }
  const Gfn gfn = layout.GfnOf(gpa);
  const EpochGuard guard;
  // As a fault: nothing is written while a change of this frame is under way, or the VM is quiet.
  if (!vm.seq.StillValid(guard, GfnRange{gfn, 1}, vm.seq.Snapshot(gfn))) return Retry{};
  const Root& root = vm.roots.Of(layout.KindOf(gpa), layout.IsExecuteOnly(gpa));
  Cursor at(guard, *vm.env.pool, root, GfnRange{gfn, 1});
  while (true) {
    const EptEntry entry = at.entry();
    const SlotState state = StateOf(entry, at.level());
    if (state == SlotState::kEmpty || state == SlotState::kFrozen) return Retry{};
    if (state == SlotState::kMmio) {
      if (!IsMmioEntry(entry)) break;
      if (entry == MarkNow(vm)) {
        vm.counts.Add(VmCount::kMmioCached);
        return CachedMmio{layout.GpaOf(gfn, MemoryKind::kPrivate, gpa.value & kPageOffsetMask)};
      }
      // Stale: whoever comes next finds out anew.
      if (vm.change.Freeze(guard, at.slot(), entry) == ChangeResult::kDone) {
        vm.change.PublishMark(at.slot(), kEmptyEntry);
      }
      return Retry{};
    }
    if (IsEptMisconfiguration(entry, at.level(), vm.config.capabilities,
                              vm.config.host_maxphyaddr)) {
      break;
    }
    // Memory has taken the mark's place meanwhile.
    if (state == SlotState::kLeaf) return Retry{};
    if (!at.Descend(entry)) break;
  }
  return Bug(vm,
             absl::StrCat("EPT misconfiguration at 0x", absl::Hex(gpa.value), ": entry 0x",
                          absl::Hex(at.entry().raw()), " of level ", static_cast<int>(at.level())));
}

}  // namespace twinroot::mmu
