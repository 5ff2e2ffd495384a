// Where the vCPUs of an access program wait for each other. Thread-safe.
#ifndef TWINROOT_DAEMON_VCPU_SIM_BARRIER_H_
#define TWINROOT_DAEMON_VCPU_SIM_BARRIER_H_

#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace twinroot::sim {

class Barrier {
 public:
  // How many take part; before the first Arrive.
  void Expect(uint32_t parties) {
    std::lock_guard lock(mutex_);
    parties_ = parties;
  }

  // Waits until all parties that have not left have arrived. False: stopped, now or before.
  bool Arrive() {
    std::unique_lock lock(mutex_);
    const uint64_t round = round_;
    ++arrived_;
    OpenIfComplete();
    changed_.wait(lock, [&] { return stopped_ || round_ != round; });
    return !stopped_;
  }

  // One party will not arrive any more.
  void Leave() {
    std::lock_guard lock(mutex_);
    --parties_;
    OpenIfComplete();
  }

  // Lets everybody go, for good.
  void Stop() {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
  }

 private:
  void OpenIfComplete() {
    if (arrived_ == 0 || arrived_ < parties_) return;
    arrived_ = 0;
    ++round_;
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  uint32_t parties_ = 0;
  uint32_t arrived_ = 0;
  uint64_t round_ = 0;
  bool stopped_ = false;
};

}  // namespace twinroot::sim

#endif  // TWINROOT_DAEMON_VCPU_SIM_BARRIER_H_
