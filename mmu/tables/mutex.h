// std::mutex under names that clang's -Wthread-safety understands; elsewhere the annotations
// vanish.
#ifndef TWINROOT_MMU_TABLES_MUTEX_H_
#define TWINROOT_MMU_TABLES_MUTEX_H_

#include <cstdint>
#include <mutex>

#if defined(__clang__)
#define TWINROOT_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define TWINROOT_THREAD_ANNOTATION(x)
#endif

#define TWINROOT_CAPABILITY(name) TWINROOT_THREAD_ANNOTATION(capability(name))
#define TWINROOT_SCOPED_CAPABILITY TWINROOT_THREAD_ANNOTATION(scoped_lockable)
#define TWINROOT_GUARDED_BY(x) TWINROOT_THREAD_ANNOTATION(guarded_by(x))
#define TWINROOT_REQUIRES(...) TWINROOT_THREAD_ANNOTATION(requires_capability(__VA_ARGS__))
#define TWINROOT_ACQUIRE(...) TWINROOT_THREAD_ANNOTATION(acquire_capability(__VA_ARGS__))
#define TWINROOT_TRY_ACQUIRE(...) TWINROOT_THREAD_ANNOTATION(try_acquire_capability(__VA_ARGS__))
#define TWINROOT_RELEASE(...) TWINROOT_THREAD_ANNOTATION(release_capability(__VA_ARGS__))

namespace twinroot::mmu {

class TWINROOT_CAPABILITY("mutex") Mutex {
 public:
  void Lock() TWINROOT_ACQUIRE() { mutex_.lock(); }
  bool TryLock() TWINROOT_TRY_ACQUIRE(true) { return mutex_.try_lock(); }
  void Unlock() TWINROOT_RELEASE() { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

class TWINROOT_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) TWINROOT_ACQUIRE(mutex) : mutex_(mutex) { mutex_.Lock(); }
  // After a TryLock that took it.
  enum Taken : uint8_t { kTaken };
  MutexLock(Mutex& mutex, Taken) TWINROOT_REQUIRES(mutex) : mutex_(mutex) {}
  ~MutexLock() TWINROOT_RELEASE() { mutex_.Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TABLES_MUTEX_H_
