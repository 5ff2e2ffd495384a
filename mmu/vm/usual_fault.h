// What most faults are: a page that is there, in a VM where nothing is withheld, whose tables stand
// and whose slot is empty. Straight down, since this is what a guest waits for; all else is the
// fault handler's.
//
// Thread-safe, as the fault handler is. The questions are its own, by the same functions.
#ifndef TWINROOT_MMU_VM_USUAL_FAULT_H_
#define TWINROOT_MMU_VM_USUAL_FAULT_H_

#include <optional>

#include "mmu/engine/map.h"
#include "mmu/vm/address_space_state.h"
#include "mmu/vm/leaf_choice.h"

namespace twinroot::mmu {

// Not inlined, so that the usual fault, of 4K, does not carry it along.
[[gnu::noinline]] inline Level LevelWithoutLog(const AddressSpaceState& vm, const EpochGuard& guard,
                                               const Root& root, Gfn gfn, const Memslot& slot,
                                               Pfn pfn, MemoryAttributes attributes,
                                               Level backing) {
  return LevelFor(vm, guard, root,
                  {.gfn = gfn,
                   .pfn = pfn,
                   .slot = slot.range,
                   .attributes = attributes,
                   .backing = backing})
      .level;
}

// The leaf of `level` that a fault in the usual VM makes; kEmptyEntry: it is to be seen by the
// whole handler. The questions of LookOnce, up to the first whose answer is not the usual one.
[[gnu::noinline]] inline EptEntry UsualLeaf(const AddressSpaceState& vm, const EpochGuard& guard,
                                            const Root& root, Gfn gfn, Level level, Access access) {
  const Memslot* const slot = vm.slots.Find(guard, gfn);
  if (slot == nullptr || gfn >= vm.gfn_limit) return kEmptyEntry;
  const MemoryAttributes attributes = vm.attributes.Get(guard, gfn);
  const std::optional<Pfn> pfn = BackingOf(*slot, gfn, root.kind);
  if (attributes.kind != root.kind || !pfn) return kEmptyEntry;
  if (vm.log.load(std::memory_order_acquire) != nullptr || Mitigates(vm, root)) return kEmptyEntry;
  const std::optional<Level> backing = vm.env.pages->Ready(gfn, root.kind);
  if (!backing) return kEmptyEntry;
  const LeafRequest leaf = LeafOf(vm, guard, root, gfn, attributes);
  if (!leaf.allowed.Includes(access)) return kEmptyEntry;
  if (*backing == Level::k4K) {
    return level == Level::k4K ? MakeLeaf(*pfn, Level::k4K, leaf) : kEmptyEntry;
  }
  if (level != LevelWithoutLog(vm, guard, root, gfn, *slot, *pfn, attributes, *backing)) {
    return kEmptyEntry;
  }
  return MakeLeaf(*pfn - gfn.value % FramesPerEntry(level), level, leaf);
}

// Nullopt: it is another, and nothing has changed.
inline std::optional<Level> HandleUsual(AddressSpaceState& vm, Gpa raw, Access access) {
  const GpaLayout& layout = vm.config.layout;
  const Root& root = vm.roots.Of(layout.KindOf(raw), layout.IsExecuteOnly(raw));
  if (vm.bugs.bugged() || layout.HasReservedBits(raw) || root.external != nullptr) return {};
  const Gfn gfn = layout.GfnOf(raw);
  // Before anything is read, as in the whole handler.
  const uint64_t snapshot = vm.seq.Snapshot(gfn);
  const EpochGuard guard;
  if (!vm.seq.StillValid(guard, GfnRange{gfn, 1}, snapshot)) [[unlikely]]
    return {};
  return MapEmpty(
      guard, *vm.env.pool, vm.change, root, gfn,
      [&](Level level) { return UsualLeaf(vm, guard, root, gfn, level, access); },
      [&](GfnRange leaf) { return vm.seq.StillValid(guard, leaf, snapshot); });
}

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_USUAL_FAULT_H_
