// The lock of one VM's tables. Holding it is a value: functions take a token parameter, so that
// the wrong lock does not compile.
//
// Faults hold it Shared and change leaves by CAS; zaps and commits hold it Exclusive. A waiting
// writer goes before readers that come later: glibc's rwlock would let faults starve it.
// Never held while a page is resolved, reserved, copied or discarded.
#ifndef TWINROOT_MMU_TABLES_MMU_LOCK_H_
#define TWINROOT_MMU_TABLES_MMU_LOCK_H_

#include <atomic>
#include <mutex>
#include <shared_mutex>

#include "mmu/tables/mutex.h"

namespace twinroot::mmu {

class TWINROOT_CAPABILITY("mmu_lock") MmuLock {
 public:
  // Either kind: enough to read.
  class Held {
   public:
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;

   protected:
    Held() = default;
    ~Held() = default;
  };

  class TWINROOT_SCOPED_CAPABILITY Shared : public Held {
   public:
    explicit Shared(MmuLock& lock) TWINROOT_ACQUIRE_SHARED(lock) : lock_(lock) {
      if (lock.writers_waiting_.load(std::memory_order_relaxed) != 0) {
        const std::lock_guard<std::mutex> behind_the_writer(lock.gate_);
      }
      lock.mutex_.lock_shared();
    }
    ~Shared() TWINROOT_RELEASE() { lock_.mutex_.unlock_shared(); }

   private:
    MmuLock& lock_;
  };

  class TWINROOT_SCOPED_CAPABILITY Exclusive : public Held {
   public:
    explicit Exclusive(MmuLock& lock) TWINROOT_ACQUIRE(lock) : lock_(lock) {
      lock.writers_waiting_.fetch_add(1, std::memory_order_relaxed);
      {
        const std::lock_guard<std::mutex> hold_readers_back(lock.gate_);
        lock.mutex_.lock();
      }
      lock.writers_waiting_.fetch_sub(1, std::memory_order_relaxed);
    }
    ~Exclusive() TWINROOT_RELEASE() { lock_.mutex_.unlock(); }

   private:
    MmuLock& lock_;
  };

 private:
  std::shared_mutex mutex_;
  std::mutex gate_;
  std::atomic<int> writers_waiting_{0};
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TABLES_MMU_LOCK_H_
