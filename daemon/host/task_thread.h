// One thread that runs small tasks, now or at a time. Thread-safe. Tasks that wait when it is
// destroyed are dropped; the one that runs is finished.
#ifndef TWINROOT_DAEMON_HOST_TASK_THREAD_H_
#define TWINROOT_DAEMON_HOST_TASK_THREAD_H_

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <tuple>
#include <utility>

#include "absl/time/time.h"

namespace twinroot::host {

class TaskThread {
 public:
  TaskThread();
  ~TaskThread();

  // Names a task that waits.
  struct Ticket {
    absl::Time when = absl::InfinitePast();
    uint64_t number = 0;
    friend bool operator<(const Ticket& a, const Ticket& b) {
      return std::tie(a.when, a.number) < std::tie(b.when, b.number);
    }
  };

  void Post(std::function<void()> task) { PostAt(absl::InfinitePast(), std::move(task)); }
  Ticket PostAt(absl::Time when, std::function<void()> task);
  // Drops a task that still waits; one that runs, runs on.
  void Cancel(const Ticket& ticket);

 private:
  void Run();

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  std::map<Ticket, std::function<void()>> tasks_;
  uint64_t next_number_ = 1;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_TASK_THREAD_H_
