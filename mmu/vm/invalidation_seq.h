// How a fault learns that what it read before it took the lock may be out of date.
//
// A fault takes a snapshot, reads, resolves its page without locks, and asks MustRetry under the
// lock before it maps. A change says Begin before its first zap and End after its commit. Counts
// are sharded by 1 GiB of guest memory, so a conversion makes few faults elsewhere retry.
// Snapshot needs no lock; the rest goes by the MMU lock. One change at a time.
#ifndef TWINROOT_MMU_VM_INVALIDATION_SEQ_H_
#define TWINROOT_MMU_VM_INVALIDATION_SEQ_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "mmu/tables/mmu_lock.h"
#include "mmu/types/gfn_range.h"
#include "mmu/types/level.h"

namespace twinroot::mmu {

class InvalidationSeq {
 public:
  uint64_t Snapshot(Gfn gfn) const { return ShardOf(gfn).load(std::memory_order_acquire); }

  // A change of this frame is under way, or ended since the snapshot.
  bool MustRetry(const MmuLock::Held& lock, Gfn gfn, uint64_t snapshot) const {
    return UnderWay(lock, GfnRange{gfn, 1}) || Snapshot(gfn) != snapshot;
  }
  // A change of some frame of the range is under way.
  bool UnderWay(const MmuLock::Held&, GfnRange range) const;

  // What a change of `ranges` holds off: widened to the largest leaves, which a fault beside the
  // range could otherwise map over it; ordered and merged.
  static std::vector<GfnRange> HeldOff(std::vector<GfnRange> ranges);

  // `held_off` as HeldOff gave it.
  void Begin(const MmuLock::Exclusive&, std::vector<GfnRange> held_off);
  void End(const MmuLock::Exclusive&);

  uint64_t invalidations() const { return invalidations_.load(std::memory_order_relaxed); }

 private:
  static constexpr size_t kShards = 64;
  struct alignas(64) Shard {
    std::atomic<uint64_t> ended{0};
  };
  static uint64_t ShardNumber(Gfn gfn) { return gfn.value / FramesPerEntry(Level::k1G); }
  const std::atomic<uint64_t>& ShardOf(Gfn gfn) const {
    return shards_[ShardNumber(gfn) % kShards].ended;
  }

  std::array<Shard, kShards> shards_;
  std::vector<GfnRange> held_off_;
  std::atomic<uint64_t> invalidations_{0};
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_INVALIDATION_SEQ_H_
