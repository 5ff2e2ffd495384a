// The functions that code compiled with -fsanitize=thread calls, and those of pthreads and liburcu
// that it may wait in: each is a step of the scheduler, then the real thing.
//
// Orders of memory are not modelled: a run is sequentially consistent. ThreadSanitizer's lane looks
// for what is missing there.
#include <pthread.h>
#include <sched.h>

#include <cstdint>

#include "tests/schedules/scheduler.h"

namespace s = twinroot::schedules;

extern "C" {

#define ATOMICS(bits)                                                                             \
  uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t* at, int) {             \
    s::BeforeAccess(at, false);                                                                   \
    return __atomic_load_n(at, __ATOMIC_SEQ_CST);                                                 \
  }                                                                                               \
  void __tsan_atomic##bits##_store(volatile uint##bits##_t* at, uint##bits##_t value, int) {      \
    s::BeforeAccess(at, true);                                                                    \
    __atomic_store_n(at, value, __ATOMIC_SEQ_CST);                                                \
  }                                                                                               \
  int __tsan_atomic##bits##_compare_exchange_strong(                                              \
      volatile uint##bits##_t* at, uint##bits##_t* expected, uint##bits##_t value, int, int) {    \
    s::BeforeAccess(at, true);                                                                    \
    return __atomic_compare_exchange_n(at, expected, value, false, __ATOMIC_SEQ_CST,              \
                                       __ATOMIC_SEQ_CST);                                         \
  }                                                                                               \
  int __tsan_atomic##bits##_compare_exchange_weak(                                                \
      volatile uint##bits##_t* at, uint##bits##_t* expected, uint##bits##_t value, int, int) {    \
    s::BeforeAccess(at, true);                                                                    \
    return __atomic_compare_exchange_n(at, expected, value, false, __ATOMIC_SEQ_CST,              \
                                       __ATOMIC_SEQ_CST);                                         \
  }                                                                                               \
  uint##bits##_t __tsan_atomic##bits##_compare_exchange_val(                                      \
      volatile uint##bits##_t* at, uint##bits##_t expected, uint##bits##_t value, int, int) {     \
    s::BeforeAccess(at, true);                                                                    \
    __atomic_compare_exchange_n(at, &expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
    return expected;                                                                              \
  }                                                                                               \
  CHANGE(bits, exchange, __atomic_exchange_n)                                                     \
  CHANGE(bits, fetch_add, __atomic_fetch_add)                                                     \
  CHANGE(bits, fetch_sub, __atomic_fetch_sub)                                                     \
  CHANGE(bits, fetch_and, __atomic_fetch_and)                                                     \
  CHANGE(bits, fetch_or, __atomic_fetch_or)                                                       \
  CHANGE(bits, fetch_xor, __atomic_fetch_xor)
#define CHANGE(bits, name, how)                                                                  \
  uint##bits##_t __tsan_atomic##bits##_##name(volatile uint##bits##_t* at, uint##bits##_t value, \
                                              int) {                                             \
    s::BeforeAccess(at, true);                                                                   \
    return how(at, value, __ATOMIC_SEQ_CST);                                                     \
  }
ATOMICS(8)
ATOMICS(16)
ATOMICS(32)
ATOMICS(64)
#undef CHANGE
#undef ATOMICS
void __tsan_atomic_thread_fence(int) {}
void __tsan_atomic_signal_fence(int) {}

// What is not atomic only must be there.
#define PLAIN(name) \
  void __tsan_##name(void* at) { s::CheckAlive(at); }
#define SIZES(verb) PLAIN(verb##1) PLAIN(verb##2) PLAIN(verb##4) PLAIN(verb##8) PLAIN(verb##16)
SIZES(read)
SIZES(write)
SIZES(unaligned_read)
SIZES(unaligned_write)
SIZES(volatile_read)
SIZES(volatile_write)
SIZES(unaligned_volatile_read)
SIZES(unaligned_volatile_write)
PLAIN(vptr_read)
#undef SIZES
#undef PLAIN
void __tsan_read_range(void* at, unsigned long) { s::CheckAlive(at); }
void __tsan_write_range(void* at, unsigned long) { s::CheckAlive(at); }
void __tsan_vptr_update(void** at, void*) { s::CheckAlive(at); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
// epoch.h annotates by these.
void __tsan_acquire(void*) {}
void __tsan_release(void*) {}

// Bound by the linker's --wrap.
int __real_pthread_mutex_lock(pthread_mutex_t* mutex);
int __real_pthread_mutex_trylock(pthread_mutex_t* mutex);
int __real_pthread_mutex_unlock(pthread_mutex_t* mutex);
int __real_sched_yield();
int __wrap_pthread_mutex_lock(pthread_mutex_t* mutex) {
  if (!s::Scheduled()) return __real_pthread_mutex_lock(mutex);
  s::Lock(mutex);
  return 0;
}
int __wrap_pthread_mutex_trylock(pthread_mutex_t* mutex) {
  if (!s::Scheduled()) return __real_pthread_mutex_trylock(mutex);
  return s::TryLock(mutex) ? 0 : 16;  // EBUSY
}
int __wrap_pthread_mutex_unlock(pthread_mutex_t* mutex) {
  if (!s::Scheduled()) return __real_pthread_mutex_unlock(mutex);
  s::Unlock(mutex);
  return 0;
}
int __wrap_sched_yield() {
  if (!s::Scheduled()) return __real_sched_yield();
  s::GiveWay();
  return 0;
}

// liburcu's, of the flavour that the engine uses; the program's own come before the library's.
void urcu_memb_register_thread() {}
void urcu_memb_unregister_thread() {}
void urcu_memb_read_lock() { s::EnterEpoch(); }
void urcu_memb_read_unlock() { s::LeaveEpoch(); }
void urcu_memb_synchronize_rcu() { s::WaitForEpoch(); }

}  // extern "C"
