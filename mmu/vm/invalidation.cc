#include "mmu/vm/invalidation.h"

#include <algorithm>
#include <utility>

#include "mmu/engine/zap.h"

namespace twinroot::mmu {
namespace {

// Frames zapped under one hold of the lock: faults elsewhere wait no longer than this takes.
constexpr uint64_t kFramesPerHold = FramesPerEntry(Level::k1G);

// Calls `zap` for pieces of at most kFramesPerHold frames, and `pause` after so many.
template <typename ZapPiece, typename Pause>
void InChunks(const std::vector<GfnRange>& ranges, const ZapPiece& zap, const Pause& pause) {
  uint64_t left = kFramesPerHold;
  for (GfnRange rest : ranges) {
    while (!rest.empty()) {
      const GfnRange piece{rest.first, std::min(left, rest.count)};
      zap(piece);
      rest = {piece.end(), rest.count - piece.count};
      left -= piece.count;
      if (left == 0) {
        pause();
        left = kFramesPerHold;
      }
    }
  }
}

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
  std::optional<MmuLock::Exclusive> lock(std::in_place, vm_.mmu_lock);
  for (const MemoryKind kind : kinds) {
    if (!vm_.roots.Has(kind)) continue;
    const Root& root = vm_.roots.Of(kind);
    InChunks(
        ranges_,
        [&](GfnRange piece) { mmu::Zap(*lock, *vm_.env.pool, vm_.change, root, piece, batch); },
        [&] {
          // Nothing comes back meanwhile: faults in the ranges are held off.
          lock.reset();
          lock.emplace(vm_.mmu_lock);
        });
  }
  return batch.Finish(*lock);
}

void Invalidation::Commit(const std::function<void(const MmuLock::Exclusive&)>& change) {
  const MmuLock::Exclusive lock(vm_.mmu_lock);
  change(lock);
  vm_.seq.End(lock);
  ended_ = true;
}

}  // namespace twinroot::mmu
