#include "mmu/vm/invalidation.h"

#include <algorithm>
#include <utility>

#include "mmu/engine/zap.h"

namespace twinroot::mmu {
namespace {

// Frames zapped under one hold of the lock: faults elsewhere wait no longer than this takes.
constexpr uint64_t kFramesPerHold = FramesPerEntry(Level::k1G);

}  // namespace

Invalidation::Invalidation(AddressSpaceState& vm, std::vector<GfnRange> ranges)
    : vm_(vm), ranges_(std::move(ranges)) {
  std::vector<GfnRange> held_off = InvalidationSeq::HeldOff(ranges_);
  const MmuLock::Exclusive lock(vm_.mmu_lock);
  vm_.seq.Begin(lock, std::move(held_off));
}

Invalidation::~Invalidation() {
  if (!ended_) Commit([](const MmuLock::Exclusive&) {});
}

absl::Status Invalidation::Zap(absl::Span<const MemoryKind> kinds) {
  FlushBatch batch = vm_.NewBatch();
  for (const MemoryKind kind : kinds) {
    if (vm_.roots.Has(kind)) ZapRoot(vm_.roots.Of(kind), batch);
  }
  const MmuLock::Exclusive lock(vm_.mmu_lock);
  return batch.Finish(lock);
}

void Invalidation::ZapRoot(const Root& root, FlushBatch& batch) {
  size_t next = 0;    // range
  uint64_t done = 0;  // frames of it
  while (next < ranges_.size()) {
    // Between two holds nothing comes back: faults in the ranges are held off.
    const MmuLock::Exclusive lock(vm_.mmu_lock);
    for (uint64_t left = kFramesPerHold; left > 0 && next < ranges_.size();) {
      const GfnRange& range = ranges_[next];
      const GfnRange piece{range.first + done, std::min(left, range.count - done)};
      mmu::Zap(lock, *vm_.env.pool, vm_.change, root, piece, batch);
      left -= piece.count;
      done += piece.count;
      if (done == range.count) {
        ++next;
        done = 0;
      }
    }
  }
}

void Invalidation::Commit(const std::function<void(const MmuLock::Exclusive&)>& change) {
  const MmuLock::Exclusive lock(vm_.mmu_lock);
  change(lock);
  vm_.seq.End(lock);
  ended_ = true;
}

}  // namespace twinroot::mmu
