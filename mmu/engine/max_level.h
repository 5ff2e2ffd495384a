// The largest leaf that may map a frame (behaviour D3), and what forbids a larger one. Pure.
#ifndef TWINROOT_MMU_ENGINE_MAX_LEVEL_H_
#define TWINROOT_MMU_ENGINE_MAX_LEVEL_H_

#include "mmu/hw/ept_capabilities.h"
#include "mmu/types/address.h"
#include "mmu/types/gfn_range.h"
#include "mmu/types/level.h"

namespace twinroot::mmu {

// The largest leaf that this engine makes.
inline constexpr Level kLargestLeaf = Level::k1G;

// The range of one leaf around `gfn`.
constexpr GfnRange LeafRange(Gfn gfn, Level level) {
  const uint64_t frames = FramesPerEntry(level);
  return {gfn - gfn.value % frames, frames};
}

// Why a leaf is no larger.
enum class LevelVeto : uint8_t {
  kNone,          // it is as large as leaves get
  kCapability,    // the processor's EPT has no larger pages
  kMemslot,       // a larger one would reach out of the memslot
  kAlignment,     // gfn and host frame are not aligned alike
  kBacking,       // the page source has no larger page here
  kExternal,      // the external table takes no larger one
  kDirtyLog,      // dirty logging counts pages of 4 KiB
  kNxMitigation,  // instructions are fetched from it, and large pages are not executable
  kAttributes,    // not all of its pages have the same attributes
  kMemTypes,      // not all of its pages have the same memory type
};

struct LevelLimits {
  Gfn gfn;
  Pfn pfn;         // of gfn; neighbours are contiguous inside the slot
  GfnRange slot;   // the leaf stays inside
  Level backing;   // largest leaf that the page source allows here
  Level external;  // largest leaf that the external table takes
  EptCapabilities capabilities;
  bool dirty_log = false;
  bool nx_fetch = false;  // a fetch, and large pages grant none
};

struct LevelChoice {
  Level level = Level::k4K;
  LevelVeto veto = LevelVeto::kNone;  // what forbids the next larger
};

// What forbids a leaf of `level`, but for attributes and memory types.
constexpr LevelVeto VetoAt(const LevelLimits& limits, Level level) {
  if (limits.dirty_log) return LevelVeto::kDirtyLog;
  if (!limits.capabilities.MapsAt(level)) return LevelVeto::kCapability;
  if (!limits.slot.Contains(LeafRange(limits.gfn, level))) return LevelVeto::kMemslot;
  if ((limits.gfn.value ^ limits.pfn.value) % FramesPerEntry(level) != 0) {
    return LevelVeto::kAlignment;
  }
  if (level > limits.backing) return LevelVeto::kBacking;
  if (level > limits.external) return LevelVeto::kExternal;
  if (limits.nx_fetch) return LevelVeto::kNxMitigation;
  return LevelVeto::kNone;
}

// `uniform(level)`, `same_type(level)`: every frame of the leaf around gfn has the same attributes,
// the same memory type. What forbids a large leaf forbids all larger ones.
template <typename Uniform, typename SameType>
constexpr LevelChoice ChooseLevel(const LevelLimits& limits, const Uniform& uniform,
                                  const SameType& same_type) {
  Level level = Level::k4K;
  while (level < kLargestLeaf) {
    const Level next = Above(level);
    LevelVeto veto = VetoAt(limits, next);
    if (veto == LevelVeto::kNone && !uniform(next)) veto = LevelVeto::kAttributes;
    if (veto == LevelVeto::kNone && !same_type(next)) veto = LevelVeto::kMemTypes;
    if (veto != LevelVeto::kNone) return {level, veto};
    level = next;
  }
  return {level, LevelVeto::kNone};
}

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_ENGINE_MAX_LEVEL_H_
