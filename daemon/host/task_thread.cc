#include "daemon/host/task_thread.h"

#include <utility>

#include "absl/time/clock.h"

namespace twinroot::host {

TaskThread::TaskThread() : thread_([this] { Run(); }) {}

TaskThread::~TaskThread() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void TaskThread::PostAt(absl::Time when, std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    tasks_.emplace(when, std::move(task));
  }
  changed_.notify_all();
}

void TaskThread::Run() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    if (tasks_.empty()) {
      changed_.wait(lock);
      continue;
    }
    const absl::Time next = tasks_.begin()->first;
    if (next > absl::Now()) {
      changed_.wait_until(lock, absl::ToChronoTime(next));
      continue;
    }
    const std::function<void()> task = std::move(tasks_.extract(tasks_.begin()).mapped());
    lock.unlock();
    task();
    lock.lock();
  }
}

}  // namespace twinroot::host
