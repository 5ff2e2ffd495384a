// Through which the vCPUs of a machine pass before they execute, so that all of them can be
// stopped.
//
// Thread-safe. A vCPU is inside while it may execute, or works on an exit; outside while it waits
// for somebody else. It may be inside and yet unable to move, because the host holds it in a fault
// that another thread serves: then it is held. Pause ends when every vCPU is outside or held, and
// none passes or is released until Resume.
#ifndef TWINROOT_DAEMON_VCPU_PAUSE_GATE_H_
#define TWINROOT_DAEMON_VCPU_PAUSE_GATE_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "absl/functional/function_ref.h"
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
    vcpus_[vcpu].inside = false;
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
    vcpus_[vcpu].held = true;
    changed_.notify_all();
  }
  // False: the machine is paused, and the vCPU stays held; try again after Resume.
  bool Release(VcpuIndex vcpu) {
    std::lock_guard lock(mutex_);
    if (paused_ != 0 && !stopped_) return false;
    vcpus_[vcpu].held = false;
    return true;
  }

  // Several may pause it; the last Resume counts. `kick` makes vCPUs that execute come back to the
  // gate. Not by a vCPU's thread.
  void Pause(absl::FunctionRef<void()> kick) {
    {
      std::lock_guard lock(mutex_);
      ++paused_;
    }
    kick();
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] {
      return stopped_ || std::none_of(vcpus_.begin(), vcpus_.end(),
                                      [](const Place& at) { return at.inside && !at.held; });
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
    bool held = false;
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
