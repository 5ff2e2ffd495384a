// Where one vCPU waits for the decision of its VM. Thread-safe.
//
// The vCPU opens the place before it asks the VM, because the decision may overtake the answer
// "parked". A decision for a vCPU that has not asked is dropped.
#ifndef TWINROOT_DAEMON_VCPU_SIM_PARKING_PLACE_H_
#define TWINROOT_DAEMON_VCPU_SIM_PARKING_PLACE_H_

#include <condition_variable>
#include <mutex>
#include <optional>

#include "daemon/vcpu/machine.h"

namespace twinroot::sim {

class ParkingPlace {
 public:
  void Open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    decision_.reset();
  }
  void Close() {
    std::lock_guard lock(mutex_);
    open_ = false;
  }

  // Waits for the decision and closes. nullopt: stopped, now or before.
  std::optional<vcpu::MapGpaAnswer> Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return stopped_ || decision_.has_value(); });
    open_ = false;
    return stopped_ ? std::nullopt : decision_;
  }

  void Decide(vcpu::MapGpaAnswer answer) {
    std::lock_guard lock(mutex_);
    if (!open_) return;
    decision_ = answer;
    changed_.notify_all();
  }

  // Lets the vCPU go, for good.
  void Stop() {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  bool open_ = false;
  std::optional<vcpu::MapGpaAnswer> decision_;
  bool stopped_ = false;
};

}  // namespace twinroot::sim

#endif  // TWINROOT_DAEMON_VCPU_SIM_PARKING_PLACE_H_
