// Which pages one vCPU has written since they were last harvested, in the order of the first write.
// Thread-safe.
//
// A vCPU leaves the guest when its ring is soft-full, so entries for what is under way still fit;
// what does not fit all the same goes to the bitmap, never nowhere.
#ifndef TWINROOT_MMU_VM_DIRTY_RING_H_
#define TWINROOT_MMU_VM_DIRTY_RING_H_

#include <cstddef>
#include <vector>

#include "mmu/tables/mutex.h"
#include "mmu/types/address.h"

namespace twinroot::mmu {

class DirtyRing {
 public:
  // Entries that the ring keeps free for what a vCPU has in flight when it becomes soft-full.
  static constexpr size_t kReserve = 64;

  // `entries`: more than kReserve.
  explicit DirtyRing(size_t entries) : entries_(entries) {}

  // False: there is no room.
  bool Push(Gfn gfn) {
    const MutexLock lock(mutex_);
    if (count_ == entries_.size()) return false;
    entries_[(first_ + count_++) % entries_.size()] = gfn;
    return true;
  }

  // Takes the oldest entries, at most `max`.
  std::vector<Gfn> Take(size_t max) {
    const MutexLock lock(mutex_);
    std::vector<Gfn> taken;
    while (count_ > 0 && taken.size() < max) {
      taken.push_back(entries_[first_]);
      first_ = (first_ + 1) % entries_.size();
      --count_;
    }
    return taken;
  }

  bool soft_full() const {
    const MutexLock lock(mutex_);
    return count_ + kReserve >= entries_.size();
  }
  size_t size() const {
    const MutexLock lock(mutex_);
    return count_;
  }

 private:
  mutable Mutex mutex_;
  std::vector<Gfn> entries_ TWINROOT_GUARDED_BY(mutex_);
  size_t first_ TWINROOT_GUARDED_BY(mutex_) = 0;
  size_t count_ TWINROOT_GUARDED_BY(mutex_) = 0;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_DIRTY_RING_H_
