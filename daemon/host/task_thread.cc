#include "daemon/host/task_thread.h"

#include <pthread.h>

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

TaskThread::Ticket TaskThread::PostAt(absl::Time when, std::function<void()> task) {
  Ticket ticket{when, 0};
  {
    std::lock_guard lock(mutex_);
    ticket.number = next_number_++;
    tasks_.emplace(ticket, std::move(task));
  }
  changed_.notify_all();
  return ticket;
}

void TaskThread::Cancel(const Ticket& ticket) {
  std::function<void()> dropped;  // destroyed without the lock
  std::lock_guard lock(mutex_);
  const auto it = tasks_.find(ticket);
  if (it == tasks_.end()) return;
  dropped = std::move(it->second);
  tasks_.erase(it);
}

void TaskThread::Run() {
  pthread_setname_np(pthread_self(), "hvd-clock");
  std::unique_lock lock(mutex_);
  while (!stop_) {
    if (tasks_.empty()) {
      changed_.wait(lock);
      continue;
    }
    const absl::Time next = tasks_.begin()->first.when;
    if (next > absl::Now()) {
      changed_.wait_until(lock, absl::ToChronoTime(next));
      continue;
    }
    std::function<void()> task = std::move(tasks_.extract(tasks_.begin()).mapped());
    lock.unlock();
    task();
    task = nullptr;  // what it held goes without the lock
    lock.lock();
  }
}

}  // namespace twinroot::host
