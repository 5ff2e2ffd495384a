#include "mmu/vm/mem_type_change.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "mmu/vm/invalidation.h"

namespace twinroot::mmu {
namespace {

// Every frame that a range of either names, merged; all of memory if the default differs.
std::vector<GfnRange> Touched(const AddressSpaceState& vm, const MemTypes& before,
                              const MemTypes& after) {
  if (before.others != after.others) return {vm.everything};
  std::vector<GfnRange> ranges;
  for (const MemTypes* types : {&before, &after}) {
    for (const MemTypeRange& range : types->ranges) ranges.push_back(range.range);
  }
  std::sort(ranges.begin(), ranges.end(),
            [](const GfnRange& a, const GfnRange& b) { return a.first < b.first; });
  std::vector<GfnRange> merged;
  for (const GfnRange& range : ranges) {
    if (!merged.empty() && range.first <= merged.back().end()) {
      merged.back().count = std::max(range.end(), merged.back().end()) - merged.back().first;
    } else {
      merged.push_back(range);
    }
  }
  return merged;
}

}  // namespace

absl::Status ChangeMemTypes(AddressSpaceState& vm, const MemTypes& types) {
  if (absl::Status status = vm.bugs.Check(); !status.ok()) return status;
  if (vm.config.cache != CachePolicy::kGuestMtrr) {
    return absl::FailedPreconditionError(
        "the host decides the memory types of this VM; create it with the guest's MTRRs in charge");
  }
  if (absl::Status status = MemTypeMap::Check(types, vm.gfn_limit); !status.ok()) return status;
  const Turn turn(vm.turn_mutex);
  const MemTypes& before = vm.mem_types.all(turn);
  if (before == types) return absl::OkStatus();
  auto after = std::make_unique<const MemTypes>(types);
  Invalidation invalidation(turn, vm, Touched(vm, before, types));
  if (absl::Status status = invalidation.Zap(kAllKinds); !status.ok()) return status;
  invalidation.Commit([&] { vm.mem_types.Swap(turn, std::move(after)); });
  return absl::OkStatus();
}

}  // namespace twinroot::mmu
