#include "mmu/vm/nx_mitigation.h"

#include <optional>

#include "mmu/engine/max_level.h"
#include "mmu/vm/page_sizes.h"

namespace twinroot::mmu {

absl::StatusOr<RecoverResult> RecoverNxHugePages(AddressSpaceState& vm, uint64_t max) {
  RecoverResult result;
  for (uint64_t i = 0; i < max; ++i) {
    const Turn turn(vm.turn_mutex);
    if (absl::Status status = vm.bugs.Check(); !status.ok()) return status;
    if (vm.log.load() != nullptr) break;
    const std::optional<Gfn> oldest = vm.nx_record.TakeOldest();
    if (!oldest) break;
    const absl::StatusOr<uint64_t> merged =
        RecoverChunk(turn, vm, LeafRange(*oldest, Level::k2M), VmCount::kCollapseNxRecovery);
    if (!merged.ok()) return merged.status();
    result.collapsed += *merged;
  }
  return result;
}

}  // namespace twinroot::mmu
