// Which 2M ranges are mapped small only because instructions are fetched from them, oldest first.
// Thread-safe. Bounded: when it is full the oldest goes, and stays small until RecoverPages.
//
// Faults add here after they split a large page or made its first small table, once for 512 pages
// and outside of any guard: the mutex is not on the way of faults in general.
#ifndef TWINROOT_MMU_VM_NX_RECORD_H_
#define TWINROOT_MMU_VM_NX_RECORD_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <unordered_set>

#include "mmu/engine/max_level.h"
#include "mmu/tables/mutex.h"
#include "mmu/types/gfn_range.h"

namespace twinroot::mmu {

class NxRecord {
 public:
  static constexpr size_t kCapacity = 8192;  // ranges: 16 GiB

  // The 2M range around `gfn`; one that is there keeps its place.
  void Add(Gfn gfn) {
    const Gfn first = LeafRange(gfn, Level::k2M).first;
    const MutexLock lock(mutex_);
    if (!known_.insert(first.value).second) return;
    order_.push_back(first);
    if (order_.size() <= kCapacity) return;
    known_.erase(order_.front().value);
    order_.pop_front();
  }

  // Takes the oldest, if there is one.
  std::optional<Gfn> TakeOldest() {
    const MutexLock lock(mutex_);
    if (order_.empty()) return std::nullopt;
    const Gfn first = order_.front();
    order_.pop_front();
    known_.erase(first.value);
    return first;
  }

  size_t size() const {
    const MutexLock lock(mutex_);
    return order_.size();
  }

 private:
  mutable Mutex mutex_;
  std::deque<Gfn> order_ TWINROOT_GUARDED_BY(mutex_);
  std::unordered_set<uint64_t> known_ TWINROOT_GUARDED_BY(mutex_);  // first frames
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_NX_RECORD_H_
