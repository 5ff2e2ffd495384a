// How readers and changes live side by side without a common written line.
//
// A reader (a fault, a walk) stands in an EpochGuard: what it can reach stays allocated until it
// leaves. A change holds the VM's Turn, one at a time. Whoever takes something out of reach waits
// for SynchronizeEpoch before it frees it. Both are tokens: functions ask for the one they need,
// and `MmuRead` is either. Guards are process-wide, so nothing may block inside one; a guard may be
// taken inside a guard. (liburcu, the membarrier flavour; its TSan annotations are here too.)
#ifndef TWINROOT_MMU_TABLES_EPOCH_H_
#define TWINROOT_MMU_TABLES_EPOCH_H_

#include <cstdint>

#include "mmu/tables/mutex.h"

#if defined(__SANITIZE_THREAD__)
#define TWINROOT_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TWINROOT_TSAN 1
#endif
#endif
// liburcu's read side inlined, but where TSan would take it apart: there the library's own copy is
// called, and the annotations below say what it does.
#if !defined(TWINROOT_TSAN)
#define _LGPL_SOURCE  // NOLINT(bugprone-reserved-identifier): liburcu's own name
#endif
#include <urcu/urcu-memb.h>

#if defined(TWINROOT_TSAN)
extern "C" void __tsan_acquire(void* address);
extern "C" void __tsan_release(void* address);
#endif

namespace twinroot::mmu {

// Enough to read: tables, memslots and attributes stay while it lives.
class MmuRead {
 public:
  MmuRead(const MmuRead&) = delete;
  MmuRead& operator=(const MmuRead&) = delete;

 protected:
  MmuRead() = default;
  ~MmuRead() = default;
};

// What this thread is to the epochs. Threads register on their first guard and leave when they end.
class EpochThread {
 public:
  // Small and unique among the threads that live now; a thread that ends hands its own on.
  static uint32_t Index() {
    if (index_ == kNone) [[unlikely]]
      Register();
    return index_;
  }

 private:
  friend class EpochGuard;
  static constexpr uint32_t kNone = ~uint32_t{0};
  static void Register();
  struct Registration;
  static inline constinit thread_local uint32_t index_ = kNone;
};

class EpochGuard : public MmuRead {
 public:
  EpochGuard() {
    EpochThread::Index();
    urcu_memb_read_lock();
  }
  ~EpochGuard() {
#if defined(TWINROOT_TSAN)
    __tsan_release(&tsan_tag_);
#endif
    urcu_memb_read_unlock();
  }

 private:
  friend void SynchronizeEpoch();
#if defined(TWINROOT_TSAN)
  static inline char tsan_tag_ = 0;
#endif
};

// Returns when every guard that stood when it was called has been left. Not inside a guard.
void SynchronizeEpoch();

// The turn of the one change that runs in a VM: attributes, memslots, zaps, splits, dirty log.
class TWINROOT_SCOPED_CAPABILITY Turn : public MmuRead {
 public:
  explicit Turn(Mutex& mutex) TWINROOT_ACQUIRE(mutex) : lock_(mutex) {}
  // After a TryLock that took it.
  Turn(Mutex& mutex, MutexLock::Taken taken) TWINROOT_REQUIRES(mutex) : lock_(mutex, taken) {}
  ~Turn() TWINROOT_RELEASE() = default;

 private:
  MutexLock lock_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TABLES_EPOCH_H_
