// One thread that runs small tasks, now or at a time. Thread-safe. Tasks that wait when it is
// destroyed are dropped; the one that runs is finished.
#ifndef TWINROOT_DAEMON_HOST_TASK_THREAD_H_
#define TWINROOT_DAEMON_HOST_TASK_THREAD_H_

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "absl/time/time.h"

namespace twinroot::host {

class TaskThread {
 public:
  TaskThread();
  ~TaskThread();

  void Post(std::function<void()> task) { PostAt(absl::InfinitePast(), std::move(task)); }
  void PostAt(absl::Time when, std::function<void()> task);

 private:
  void Run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::multimap<absl::Time, std::function<void()>> tasks_;  // guarded by mutex_
  bool stop_ = false;                                       // guarded by mutex_
  std::thread thread_;
};

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_TASK_THREAD_H_
