// Who runs a call that does not wait for anything: a worker, so that gRPC's own threads never wait,
// or, if the call is small, the thread that took it: waking a worker costs more than such a call.
//
// Thread-safe. At most one small call at a time is run by the thread that took it. One that has to
// wait after all, for a VM that a large call holds, keeps one of gRPC's threads and no more.
#ifndef TWINROOT_DAEMON_RPC_CALL_RUNNER_H_
#define TWINROOT_DAEMON_RPC_CALL_RUNNER_H_

#include <atomic>
#include <cstddef>
#include <utility>

#include "daemon/rpc/worker_pool.h"

namespace twinroot::rpc {

enum class Weight {
  kSmall,  // takes microseconds if nobody is in its way
  kLarge,
};

class CallRunner {
 public:
  // As WorkerPool says.
  CallRunner(int threads, size_t max_queued) : workers_(threads, max_queued) {}

  // Runs `task` now, or later on a worker. False: too many tasks wait, and it will not run.
  template <typename Task>
  [[nodiscard]] bool Run(Weight weight, Task&& task) {
    if (weight == Weight::kSmall && !runs_small_.test_and_set(std::memory_order_acquire)) {
      task();
      runs_small_.clear(std::memory_order_release);
      return true;
    }
    return workers_.TryPost(std::forward<Task>(task));
  }

  // For what takes a worker now and again: streams.
  WorkerPool& workers() { return workers_; }

 private:
  std::atomic_flag runs_small_;  // clear (C++20)
  WorkerPool workers_;
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_CALL_RUNNER_H_
