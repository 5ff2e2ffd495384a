// Whether this host takes new VMs (HostService.Drain). Thread-safe.
#ifndef TWINROOT_DAEMON_RPC_ADMISSION_H_
#define TWINROOT_DAEMON_RPC_ADMISSION_H_

#include <atomic>
#include <functional>
#include <mutex>
#include <shared_mutex>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/reasons.h"
#include "daemon/status_reason.h"

namespace twinroot::rpc {

class Admission {
 public:
  using Ticket = std::shared_lock<std::shared_mutex>;

  // Held while a VM is added. kUnavailable: the host drains.
  absl::StatusOr<Ticket> Enter() {
    Ticket ticket(adding_);
    if (!draining_) return ticket;
    return WithReason(
        absl::UnavailableError("this host drains and takes no new VMs: use another, or open it "
                               "again with `hvctl host drain --undo`"),
        reason::kDraining);
  }

  // `tell` is called with the new state, changes in their order. When it returns from a drain, no
  // ticket of before is left.
  void Set(bool draining, const std::function<void(bool draining)>& tell) {
    std::lock_guard turn(turn_);
    // First, so that those who come now do not make it wait for ever.
    draining_ = draining;
    tell(draining);
    if (draining) std::lock_guard all_gone(adding_);
  }
  bool draining() const { return draining_; }

 private:
  std::mutex turn_;
  std::shared_mutex adding_;
  std::atomic<bool> draining_{false};
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_ADMISSION_H_
