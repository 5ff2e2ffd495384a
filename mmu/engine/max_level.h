// The largest leaf that may map a frame (behaviour D3). Pure.
#ifndef TWINROOT_MMU_ENGINE_MAX_LEVEL_H_
#define TWINROOT_MMU_ENGINE_MAX_LEVEL_H_

#include "mmu/hw/ept_capabilities.h"
#include "mmu/types/address.h"
#include "mmu/types/gfn_range.h"
#include "mmu/types/level.h"

namespace twinroot::mmu {

// The largest leaf that this engine makes. Faults are held off on ranges of this size around a
// change, so nothing larger may appear.
inline constexpr Level kLargestLeaf = Level::k2M;

// The range of one leaf around `gfn`.
constexpr GfnRange LeafRange(Gfn gfn, Level level) {
  const uint64_t frames = FramesPerEntry(level);
  return {gfn - gfn.value % frames, frames};
}

struct LevelLimits {
  Gfn gfn;
  Pfn pfn;         // of gfn; neighbours are contiguous inside the slot
  GfnRange slot;   // the leaf stays inside
  Level backing;   // largest leaf that the page source allows here
  Level external;  // largest leaf that the external table takes
  EptCapabilities capabilities;
};

// `uniform(level)`: every frame of the leaf around gfn has the same attributes.
template <typename Uniform>
constexpr Level MaxLevel(const LevelLimits& limits, const Uniform& uniform) {
  for (Level level = kLargestLeaf; level > Level::k4K; level = Below(level)) {
    const bool fits = level <= limits.backing && level <= limits.external &&
                      limits.capabilities.MapsAt(level) &&
                      limits.slot.Contains(LeafRange(limits.gfn, level)) &&
                      (limits.gfn.value ^ limits.pfn.value) % FramesPerEntry(level) == 0;
    if (fits && uniform(level)) return level;
  }
  return Level::k4K;
}

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_ENGINE_MAX_LEVEL_H_
