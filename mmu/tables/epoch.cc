#include "mmu/tables/epoch.h"

#include <vector>

namespace twinroot::mmu {
namespace {

// Numbers that ended threads gave back, and the first that nobody had yet.
struct Indices {
  Mutex mutex;
  std::vector<uint32_t> free TWINROOT_GUARDED_BY(mutex);
  uint32_t next TWINROOT_GUARDED_BY(mutex) = 0;
};

Indices& AllIndices() {
  static Indices* const indices = new Indices;  // threads may end after static destruction
  return *indices;
}

}  // namespace

struct EpochThread::Registration {
  Registration() {
    urcu_memb_register_thread();
    Indices& all = AllIndices();
    const MutexLock lock(all.mutex);
    if (all.free.empty()) {
      index_ = all.next++;
    } else {
      index_ = all.free.back();
      all.free.pop_back();
    }
  }
  ~Registration() {
    Indices& all = AllIndices();
    {
      const MutexLock lock(all.mutex);
      all.free.push_back(index_);
      index_ = kNone;
    }
    urcu_memb_unregister_thread();
  }
};

void EpochThread::Register() { static thread_local Registration registration; }

void SynchronizeEpoch() {
  urcu_memb_synchronize_rcu();
#if defined(TWINROOT_TSAN)
  __tsan_acquire(&EpochGuard::tsan_tag_);
#endif
}

}  // namespace twinroot::mmu
