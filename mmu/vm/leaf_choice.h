// Which leaf may stand for a frame: its level, what forbids a larger one, and its rights. One
// answer for faults, for recovery of large pages, and for whoever asks why.
#ifndef TWINROOT_MMU_VM_LEAF_CHOICE_H_
#define TWINROOT_MMU_VM_LEAF_CHOICE_H_

#include <optional>

#include "mmu/engine/make_entry.h"
#include "mmu/engine/max_level.h"
#include "mmu/vm/address_space_state.h"

namespace twinroot::mmu {

// A frame as its memslot and attributes have it, and what is wanted of it.
struct LeafWish {
  Gfn gfn;
  Pfn pfn;
  GfnRange slot;
  MemoryAttributes attributes;
  Level backing;                   // largest leaf that the page source allows here
  Access access = Access::None();  // what the fault needs
  const DirtyLog* log = nullptr;   // as it is now
};

// Large leaves grant no fetches. Where an external table stands behind, its owner decides.
inline bool Mitigates(const AddressSpaceState& vm, const Root& root) {
  return vm.config.nx_huge_pages && root.external == nullptr;
}

// `uniform(Level)`: all frames of the leaf around the frame have the same attributes.
template <typename Uniform>
LevelChoice LevelFor(const AddressSpaceState& vm, const MmuRead& read, const Root& root,
                     const LeafWish& wish, const Uniform& uniform) {
  const LevelLimits limits{
      .gfn = wish.gfn,
      .pfn = wish.pfn,
      .slot = wish.slot,
      .backing = wish.backing,
      .external = root.external != nullptr ? root.external->MaxLevel() : kLargestLeaf,
      .capabilities = vm.config.capabilities,
      .dirty_log = wish.log != nullptr,
      // Leaves of the execute-only alias grant fetches or nothing, so they are small at once.
      .nx_fetch = Mitigates(vm, root) && (wish.access.fetch() || root.execute_only)};
  return ChooseLevel(limits, uniform, [&](Level level) {
    return vm.mem_types.Same(read, LeafRange(wish.gfn, level));
  });
}

// As attributes are now.
inline LevelChoice LevelFor(const AddressSpaceState& vm, const MmuRead& read, const Root& root,
                            const LeafWish& wish) {
  return LevelFor(vm, read, root, wish,
                  [&](Level level) { return vm.attributes.UniformAt(read, wish.gfn, level); });
}

// Nothing but 4K may stand there; what forbids more is not asked.
inline bool IsSmallAnyway(const LeafWish& wish) {
  return wish.backing == Level::k4K || wish.log != nullptr;
}

inline LeafRequest LeafOf(const AddressSpaceState& vm, const MmuRead& read, const Root& root,
                          Gfn gfn, MemoryAttributes attributes, bool withhold_write = false) {
  return {.allowed = attributes.allowed() & root.rights(),
          .withhold_write = withhold_write,
          .withhold_fetch = Mitigates(vm, root),
          .mem_type = vm.mem_types.Of(read, gfn),
          .ignore_pat = vm.config.cache == CachePolicy::kWriteBack};
}

inline LeafRequest LeafOf(const AddressSpaceState& vm, const MmuRead& read, const Root& root,
                          const LeafWish& wish) {
  // A write is marked before the leaf is published; anything else gets W with its first write.
  const bool withhold_write =
      wish.log != nullptr && wish.log->withholds_write() && !wish.access.write();
  return LeafOf(vm, read, root, wish.gfn, wish.attributes, withhold_write);
}

// The leaf of `level` that a fault on `gfn` would make if its page had these attributes, and its
// surroundings were `uniform` (as LevelFor asks); nullopt: it would be smaller, or none. For places
// where something is mapped already: whether pages are there is not asked.
template <typename Uniform>
std::optional<EptEntry> LargeLeaf(const AddressSpaceState& vm, const MmuRead& read,
                                  const Root& root, Gfn gfn, Level level,
                                  MemoryAttributes attributes, const Uniform& uniform) {
  const Memslot* slot = vm.slots.Find(read, gfn);
  if (slot == nullptr || attributes.kind != root.kind) return std::nullopt;
  const std::optional<Pfn> pfn = BackingOf(*slot, gfn, root.kind);
  if (!pfn) return std::nullopt;
  const LeafWish wish{.gfn = gfn,
                      .pfn = *pfn,
                      .slot = slot->range,
                      .attributes = attributes,
                      .backing = vm.env.pages->LargestLeaf(gfn, root.kind),
                      .log = vm.log.load()};
  const LeafRequest leaf = LeafOf(vm, read, root, wish);
  if (leaf.allowed.empty() || LevelFor(vm, read, root, wish, uniform).level < level) {
    return std::nullopt;
  }
  return MakeLeaf(*pfn, level, leaf);
}

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_LEAF_CHOICE_H_
