// Threads for work that may take long, so that gRPC's own threads never wait.
//
// Thread-safe. The destructor runs what is queued, then joins; nobody may post meanwhile.
#ifndef TWINROOT_DAEMON_RPC_WORKER_POOL_H_
#define TWINROOT_DAEMON_RPC_WORKER_POOL_H_

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace twinroot::rpc {

class WorkerPool {
 public:
  // At most `max_queued` tasks wait; 0 means no limit.
  WorkerPool(int threads, size_t max_queued);
  ~WorkerPool();

  // False: too many tasks wait, and this one was not taken.
  [[nodiscard]] bool TryPost(std::function<void()> task);

 private:
  void Work();

  const size_t max_queued_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_WORKER_POOL_H_
