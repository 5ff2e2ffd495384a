// Errors of one vCPU after which it simply runs again, as long as it gets somewhere in between: an
// exit that is no error, or time. KVM_RUN may fail a few times while the host changes mappings
// below it, and a guest whose devices are all in KVM may never leave it otherwise.
//
// Not thread-safe.
#ifndef TWINROOT_DAEMON_VCPU_KVM_REPEATED_ERRORS_H_
#define TWINROOT_DAEMON_VCPU_KVM_REPEATED_ERRORS_H_

#include <chrono>

namespace twinroot::kvm {

class RepeatedErrors {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr int kMost = 10000;
  // A vCPU that gets nowhere meets the next one sooner.
  static constexpr std::chrono::seconds kProgress{1};

  // One more, now. False: they are too many.
  bool Add(Clock::time_point now = Clock::now()) {
    if (now - last_ >= kProgress) count_ = 0;
    last_ = now;
    return ++count_ < kMost;
  }
  void Forget() { count_ = 0; }

 private:
  int count_ = 0;
  Clock::time_point last_;
};

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_REPEATED_ERRORS_H_
