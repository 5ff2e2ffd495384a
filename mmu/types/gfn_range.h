// A range of guest frames without stolen bits.
#ifndef TWINROOT_MMU_TYPES_GFN_RANGE_H_
#define TWINROOT_MMU_TYPES_GFN_RANGE_H_

#include <algorithm>
#include <cstdint>

#include "mmu/types/address.h"

namespace twinroot::mmu {

// [first, first + count). `count` 0 is an empty range.
struct GfnRange {
  Gfn first;
  uint64_t count = 0;

  constexpr Gfn end() const { return first + count; }
  constexpr bool empty() const { return count == 0; }
  constexpr bool Contains(Gfn gfn) const { return gfn >= first && gfn < end(); }
  constexpr bool Contains(GfnRange r) const { return r.first >= first && r.end() <= end(); }
  constexpr bool Overlaps(GfnRange r) const { return first < r.end() && r.first < end(); }
  friend constexpr bool operator==(GfnRange, GfnRange) = default;
};

constexpr GfnRange Intersection(GfnRange a, GfnRange b) {
  const Gfn first = std::max(a.first, b.first);
  const Gfn end = std::min(a.end(), b.end());
  return first < end ? GfnRange{first, end - first} : GfnRange{first, 0};
}

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TYPES_GFN_RANGE_H_
