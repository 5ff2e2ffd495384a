// Through which the vCPUs of a machine pass before they execute, so that all of them can be
// stopped.
//
// Thread-safe. A vCPU is inside while it may execute, or works on an exit; outside while it waits
// for somebody else. It may be inside and yet unable to move, because the host holds it in a fault
// that another thread serves: then it is held. Pause ends when every vCPU is outside or held, and
// none passes or is released until Resume.
//
// A held vCPU moves again in two ways. It is released, together with all others whom the same act
// wakes. Or a signal takes it out of its fault and it comes by itself: then it meets this gate
// before the guest, and is held no more. A hold that comes later than that is void.
#ifndef TWINROOT_DAEMON_VCPU_PAUSE_GATE_H_
#define TWINROOT_DAEMON_VCPU_PAUSE_GATE_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "daemon/vcpu/machine.h"

namespace twinroot::vcpu {

class PauseGate {
 public:
  explicit PauseGate(uint32_t vcpus) : vcpus_(vcpus) {}

  // By the vCPU's own thread: it executes from now on; waits while the machine is paused.
  void Enter(VcpuIndex vcpu) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return paused_ == 0 || stopped_; });
    vcpus_[vcpu].inside = true;
  }
  void Leave(VcpuIndex vcpu) {
    std::lock_guard lock(mutex_);
    vcpus_[vcpu] = {};
    changed_.notify_all();
  }
  // Between two steps of its work.
  void Pass(VcpuIndex vcpu) {
    if (paused_.load(std::memory_order_acquire) == 0) return;
    Leave(vcpu);
    Enter(vcpu);
  }

  // By whoever serves its fault.
  void Hold(VcpuIndex vcpu) {
    std::lock_guard lock(mutex_);
    vcpus_[vcpu].held = vcpus_[vcpu].inside;
    changed_.notify_all();
  }
  // Those that are woken together. False: the machine is paused and holds one of them, so none may
  // be woken; try again after Resume. One that is not held may go: Pause waits for it.
  bool Release(absl::Span<const VcpuIndex> vcpus) {
    std::lock_guard lock(mutex_);
    if (paused_ != 0 && !stopped_ &&
        std::any_of(vcpus.begin(), vcpus.end(), [this](VcpuIndex at) { return vcpus_[at].held; })) {
      return false;
    }
    for (const VcpuIndex vcpu : vcpus) vcpus_[vcpu].held = false;
    return true;
  }
  bool AnyHeld() {
    std::lock_guard lock(mutex_);
    return std::any_of(vcpus_.begin(), vcpus_.end(), [](const Place& at) { return at.held; });
  }

  // Several may pause it; the last Resume counts. `kick` makes a vCPU that executes come back to
  // the gate; a held one is left alone. Not by a vCPU's thread.
  void Pause(absl::FunctionRef<void(VcpuIndex)> kick) {
    std::unique_lock lock(mutex_);
    ++paused_;
    for (VcpuIndex vcpu = 0; vcpu < vcpus_.size(); ++vcpu) {
      if (!vcpus_[vcpu].executes()) continue;
      lock.unlock();
      kick(vcpu);
      lock.lock();
    }
    changed_.wait(lock, [this] {
      return stopped_ || std::none_of(vcpus_.begin(), vcpus_.end(),
                                      [](const Place& at) { return at.executes(); });
    });
  }
  void Resume() {
    std::lock_guard lock(mutex_);
    --paused_;
    changed_.notify_all();
  }

  bool paused() const { return paused_.load(std::memory_order_acquire); }

  // The machine ends: nobody waits here any more.
  void Stop() {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
  }

 private:
  struct Place {
    bool inside = false;
    bool held = false;  // and inside
    bool executes() const { return inside && !held; }
  };

  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<int> paused_{0};  // how often; written under mutex_
  // Guarded by mutex_.
  bool stopped_ = false;
  std::vector<Place> vcpus_;
};

// Outside as long as it lives.
class Outside {
 public:
  Outside(PauseGate& gate, VcpuIndex vcpu) : gate_(gate), vcpu_(vcpu) { gate_.Leave(vcpu_); }
  ~Outside() { gate_.Enter(vcpu_); }
  Outside(const Outside&) = delete;
  Outside& operator=(const Outside&) = delete;

 private:
  PauseGate& gate_;
  const VcpuIndex vcpu_;
};

}  // namespace twinroot::vcpu

#endif  // TWINROOT_DAEMON_VCPU_PAUSE_GATE_H_
