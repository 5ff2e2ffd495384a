// Thread-safe, as Vm is. Not for threads that serve others: it blocks.
#ifndef TWINROOT_DAEMON_HOST_WAIT_STOPPED_H_
#define TWINROOT_DAEMON_HOST_WAIT_STOPPED_H_

#include <condition_variable>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "daemon/host/vm.h"

namespace twinroot::host {

// Waits until the VM is stopped or deleted. False: it is neither by then.
inline bool WaitStopped(Vm& vm, absl::Duration patience) {
  std::mutex mutex;
  std::condition_variable changed;
  bool stopped = false;
  const std::unique_ptr<Vm::Waiter> waiter = vm.OnStopped([&](const absl::Status&) {
    std::lock_guard lock(mutex);
    stopped = true;
    changed.notify_all();
  });
  // Dropped before the waiter is, which waits for a call under way.
  std::unique_lock lock(mutex);
  return changed.wait_for(lock, absl::ToChronoNanoseconds(patience), [&] { return stopped; });
}

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_WAIT_STOPPED_H_
