// Runs tasks that may take long, off the caller's thread. Tasks of one lane run in order, one at a
// time; no lane waits for another. Thread-safe.
//
// A lane is named by the address of whoever posts. It has a thread as long as it has tasks, made by
// the one spare thread: a thread has its maker's processors and control group, and a vCPU that
// posts is held to those of its VM. Where the host gives no thread, the spare one serves the lane
// itself, and lanes that begin meanwhile wait for it. Tasks that wait when this is destroyed are
// dropped; those that run are finished.
#ifndef TWINROOT_DAEMON_HOST_TASK_LANES_H_
#define TWINROOT_DAEMON_HOST_TASK_LANES_H_

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

namespace twinroot::host {

class TaskLanes {
 public:
  TaskLanes();
  ~TaskLanes();

  void Post(const void* lane, std::function<void()> task);

 private:
  struct Lane {
    std::deque<std::function<void()>> tasks;
    std::thread thread;  // none: the spare one serves it
  };

  void Run(const void* lane);
  void RunSpare();

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  std::map<const void*, Lane> lanes_;       // those with tasks, waiting or running
  std::deque<const void*> without_thread_;  // yet
  std::vector<std::thread> ended_;          // nothing is left of them but to join them
  bool stop_ = false;
  std::thread spare_;
};

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_TASK_LANES_H_
