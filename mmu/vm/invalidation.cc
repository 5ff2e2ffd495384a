#include "mmu/vm/invalidation.h"

#include <thread>
#include <utility>

#include "mmu/engine/zap.h"

namespace twinroot::mmu {

Invalidation::Invalidation(const Turn& turn, AddressSpaceState& vm, std::vector<GfnRange> ranges)
    : turn_(turn), vm_(vm), ranges_(std::move(ranges)) {
  vm_.seq.Begin(turn_, ranges_);
}

Invalidation::~Invalidation() {
  if (!ended_) vm_.seq.End(turn_);
}

absl::Status Invalidation::Zap(absl::Span<const MemoryKind> kinds) {
  if (vm_.shadow != nullptr) vm_.shadow->Zap(turn_, ranges_);
  FlushBatch batch = vm_.NewBatch();
  for (const MemoryKind kind : kinds) {
    for (const Root& alias : vm_.roots.AliasesOf(kind)) {
      for (const GfnRange& range : ranges_) {
        mmu::Zap(turn_, *vm_.env.pool, vm_.change, alias, range, batch);
      }
    }
  }
  return batch.Finish(turn_);
}

void Invalidation::Commit(const std::function<void()>& change) {
  change();
  ended_ = true;
  vm_.seq.End(turn_);
}

Quiet::Quiet(const Turn& turn, AddressSpaceState& vm) : everything_(turn, vm, {vm.everything}) {
  // Those who looked before it began have left, or have counted themselves.
  SynchronizeEpoch();
  while (vm.external_sets.load(std::memory_order_acquire) != 0) std::this_thread::yield();
}

}  // namespace twinroot::mmu
