// vCPUs that wait for pages which their source does not have yet (F13): post-copy, lazy restore.
// Thread-safe.
#ifndef TWINROOT_MMU_VM_PAGE_WAITERS_H_
#define TWINROOT_MMU_VM_PAGE_WAITERS_H_

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "mmu/tables/mutex.h"
#include "mmu/types/gfn_range.h"
#include "mmu/types/memory_kind.h"

namespace twinroot::mmu {

class PageWaiters {
 public:
  // A vCPU waits for a page once, however often it faults on it.
  void Add(Gfn gfn, MemoryKind kind, uint32_t vcpu) {
    const MutexLock lock(mutex_);
    std::vector<uint32_t>& vcpus = waiters_[{gfn, kind}];
    if (std::find(vcpus.begin(), vcpus.end(), vcpu) == vcpus.end()) vcpus.push_back(vcpu);
  }
  // The page came before the vCPU left.
  void Remove(Gfn gfn, MemoryKind kind, uint32_t vcpu) {
    const MutexLock lock(mutex_);
    const auto it = waiters_.find({gfn, kind});
    if (it == waiters_.end()) return;
    std::erase(it->second, vcpu);
    if (it->second.empty()) waiters_.erase(it);
  }
  // Exactly those who wait for this page; they wait no more.
  std::vector<uint32_t> Take(Gfn gfn, MemoryKind kind) {
    const MutexLock lock(mutex_);
    const auto it = waiters_.find({gfn, kind});
    if (it == waiters_.end()) return {};
    std::vector<uint32_t> vcpus = std::move(it->second);
    waiters_.erase(it);
    return vcpus;
  }
  // Those who wait for any page of the range: it was converted or taken away, they try again.
  std::vector<uint32_t> TakeRange(GfnRange range) {
    const MutexLock lock(mutex_);
    std::vector<uint32_t> vcpus;
    auto it = waiters_.lower_bound({range.first, MemoryKind::kPrivate});
    while (it != waiters_.end() && it->first.first < range.end()) {
      vcpus.insert(vcpus.end(), it->second.begin(), it->second.end());
      it = waiters_.erase(it);
    }
    return vcpus;
  }

 private:
  Mutex mutex_;
  std::map<std::pair<Gfn, MemoryKind>, std::vector<uint32_t>> waiters_ TWINROOT_GUARDED_BY(mutex_);
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_PAGE_WAITERS_H_
