#include "mmu/vm/aging.h"

#include "mmu/engine/protect.h"
#include "mmu/vm/attribute_change.h"
#include "mmu/vm/chunks.h"

namespace twinroot::mmu {
namespace {

absl::Status CheckRoots(const AddressSpaceState& vm) {
  absl::Status status;
  ForEachAlias(vm, [&](const Root& alias) {
    if (alias.external == nullptr) return;
    status = absl::FailedPreconditionError(
        "this backend cannot tell which pages were accessed: processors walk tables elsewhere");
  });
  return status;
}

void SetBits(AgeResult& result, GfnRange pages) {
  const GfnRange in = Intersection(pages, result.range);
  for (uint64_t i = 0; i < in.count; ++i) {
    const uint64_t bit = in.first + i - result.range.first;
    result.words[bit / DirtyBitmap::kWordBits] |= uint64_t{1} << bit % DirtyBitmap::kWordBits;
  }
}

}  // namespace

absl::StatusOr<AgeResult> TestAndClearAccessed(AddressSpaceState& vm, GfnRange range) {
  {
    const Turn turn(vm.turn_mutex);
    if (absl::Status status = CheckRange(vm, turn, range); !status.ok()) return status;
    if (absl::Status status = CheckRoots(vm); !status.ok()) return status;
  }
  const Taken what = vm.config.capabilities.accessed_dirty ? Taken::kAccessed : Taken::kRights;
  constexpr uint64_t kWordBits = DirtyBitmap::kWordBits;
  AgeResult result{range, std::vector<uint64_t>((range.count + kWordBits - 1) / kWordBits)};
  const absl::Status status = ForEachChunk(vm, range, [&](const Turn& turn, GfnRange chunk) {
    FlushBatch batch = vm.NewBatch();
    ForEachAlias(vm, [&](const Root& alias) {
      TakeFromRange(turn, *vm.env.pool, vm.change, alias, chunk, what, batch,
                    [&](Gfn first, uint64_t frames) {
                      SetBits(result, {first, frames});
                    });
    });
    if (vm.shadow != nullptr) {
      vm.shadow->Age(turn, chunk, [&](GfnRange pages) { SetBits(result, pages); });
    }
    return batch.Finish(turn);
  });
  if (!status.ok()) return status;
  return result;
}

}  // namespace twinroot::mmu
