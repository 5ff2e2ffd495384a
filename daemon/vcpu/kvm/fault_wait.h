// How a machine's handler waits for the next fault: a short while awake, since a guest that faults
// is likely to fault again and a sleeper wakes late, and then asleep.
//
// Of all machines of the daemon only as many wait awake at a time as leave half of the processors
// to guests. One handler's own; not thread-safe.
#ifndef TWINROOT_DAEMON_VCPU_KVM_FAULT_WAIT_H_
#define TWINROOT_DAEMON_VCPU_KVM_FAULT_WAIT_H_

#include <poll.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <span>
#include <thread>

namespace twinroot::kvm {

class FaultWait {
 public:
  // tests/bench/README.md says what other lengths cost.
  static constexpr std::chrono::microseconds kAwake{50};

  // True: one of them is ready. False: a signal came. `served`: a fault was served since the last
  // call.
  static bool For(std::span<pollfd> sources, bool served) {
    if (served && AwakeFor(sources)) return true;
    return poll(sources.data(), sources.size(), -1) > 0;
  }

 private:
  static bool AwakeFor(std::span<pollfd> sources) {
    static const int most = std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / 2);
    static std::atomic<int> awake{0};
    bool ready = poll(sources.data(), sources.size(), 0) > 0;
    if (ready || awake.fetch_add(1, std::memory_order_relaxed) >= most) {
      if (!ready) awake.fetch_sub(1, std::memory_order_relaxed);
      return ready;
    }
    const auto end = std::chrono::steady_clock::now() + kAwake;
    while (!ready && std::chrono::steady_clock::now() < end) {
      sched_yield();  // a vCPU may want this processor
      ready = poll(sources.data(), sources.size(), 0) > 0;
    }
    awake.fetch_sub(1, std::memory_order_relaxed);
    return ready;
  }
};

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_FAULT_WAIT_H_
