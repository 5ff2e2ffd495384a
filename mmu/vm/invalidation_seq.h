// How a fault learns that what it read may be out of date, without a lock.
//
// A change says Begin before its first zap and End after its commit. A fault takes a snapshot
// before it reads anything, freezes the slot of its leaf, and asks StillValid before it publishes:
//
//   fault                              change
//   freeze the slot      (seq_cst)     mark the shard: begun       (seq_cst)
//   read the shard       (seq_cst)     read the slots of the range (seq_cst)
//
// One of them is second: either the fault sees that the change has begun and gives up, or the
// change sees the frozen slot, waits for it, and takes away what is published. The same holds for a
// table that the fault linked on its way. Counts are sharded by 1 GiB, so a change makes few faults
// elsewhere retry; a leaf lies in one shard. One change at a time.
#ifndef TWINROOT_MMU_VM_INVALIDATION_SEQ_H_
#define TWINROOT_MMU_VM_INVALIDATION_SEQ_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "mmu/tables/epoch.h"
#include "mmu/tables/retire_list.h"
#include "mmu/types/gfn_range.h"
#include "mmu/types/level.h"

namespace twinroot::mmu {

class InvalidationSeq {
 public:
  ~InvalidationSeq() { delete ranges_.load(); }

  uint64_t Snapshot(Gfn gfn) const {
    return ShardOf(gfn).load(std::memory_order_acquire) & ~kBegun;
  }

  // No change of a frame of `leaf` is under way, and none of its 1 GiB has ended since the
  // snapshot. `leaf` lies in 1 GiB.
  bool StillValid(const EpochGuard& guard, GfnRange leaf, uint64_t snapshot) const {
    const uint64_t now = ShardOf(leaf.first).load(std::memory_order_seq_cst);
    return now == snapshot || (now == (snapshot | kBegun) && Beside(guard, leaf, now));
  }

  // `ranges`: ordered, disjoint, not empty.
  void Begin(const Turn&, std::vector<GfnRange> ranges);
  void End(const Turn&);

  uint64_t invalidations() const { return invalidations_.load(std::memory_order_relaxed); }

 private:
  static constexpr size_t kShards = 64;
  static constexpr uint64_t kBegun = 1;  // a change of some frame of the shard is under way
  static constexpr uint64_t kOneEnded = 2;
  struct alignas(64) Shard {
    std::atomic<uint64_t> word{0};
  };
  static uint64_t ShardNumber(Gfn gfn) { return gfn.value / FramesPerEntry(Level::k1G); }
  const std::atomic<uint64_t>& ShardOf(Gfn gfn) const {
    return shards_[ShardNumber(gfn) % kShards].word;
  }
  // The change that the shard's word tells of does not touch the leaf.
  bool Beside(const EpochGuard&, GfnRange leaf, uint64_t word) const;
  template <typename Function>
  void ForEachShard(const std::vector<GfnRange>& ranges, const Function& function);

  std::array<Shard, kShards> shards_;
  std::atomic<const std::vector<GfnRange>*> ranges_{nullptr};  // of the change under way
  RetireList retired_;
  std::atomic<uint64_t> invalidations_{0};
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_INVALIDATION_SEQ_H_
