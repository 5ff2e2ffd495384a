#include "mmu/vm/mem_type_map.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace twinroot::mmu {
namespace {

// The first range that ends behind `gfn`, which is the only one that can hold it.
std::vector<MemTypeRange>::const_iterator At(const MemTypes& types, Gfn gfn) {
  return std::upper_bound(types.ranges.begin(), types.ranges.end(), gfn,
                          [](Gfn g, const MemTypeRange& range) { return g < range.range.end(); });
}

}  // namespace

absl::Status MemTypeMap::Check(const MemTypes& types, Gfn limit) {
  Gfn behind(0);
  for (const MemTypeRange& range : types.ranges) {
    const uint64_t first = range.range.first.value;
    const std::string name =
        absl::StrCat("memory type range at 0x", absl::Hex(first << kPageShift));
    if (range.range.empty()) return absl::InvalidArgumentError(name + " is empty");
    if (first >= limit.value || range.range.count > limit.value - first) {
      return absl::InvalidArgumentError(name + " ends beyond the guest's memory");
    }
    if (range.range.first < behind) {
      return absl::InvalidArgumentError(name + " overlaps the one before it, or is out of order");
    }
    behind = range.range.end();
  }
  return absl::OkStatus();
}

MemType MemTypeMap::OfOneIn(const MemTypes& types, Gfn gfn) {
  const auto it = At(types, gfn);
  return it != types.ranges.end() && it->range.Contains(gfn) ? it->type : types.others;
}

bool MemTypeMap::Same(const MmuRead& read, GfnRange range) const {
  const MemTypes& types = all(read);
  if (types.ranges.empty()) return true;
  const MemType type = Of(read, range.first);
  Gfn at = range.first;
  for (auto it = At(types, range.first); it != types.ranges.end() && it->range.Overlaps(range);
       ++it) {
    // A gap before this range is of the default type.
    if (it->range.first > at && types.others != type) return false;
    if (it->type != type) return false;
    at = it->range.end();
  }
  return at >= range.end() || types.others == type;
}

}  // namespace twinroot::mmu
