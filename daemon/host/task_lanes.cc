#include "daemon/host/task_lanes.h"

#include <system_error>
#include <utility>

namespace twinroot::host {

TaskLanes::TaskLanes() : spare_([this] { RunSpare(); }) {}

TaskLanes::~TaskLanes() {
  std::unique_lock lock(mutex_);
  stop_ = true;
  changed_.notify_all();
  changed_.wait(lock, [this] { return lanes_.empty(); });
  lock.unlock();
  spare_.join();
  for (std::thread& thread : ended_) thread.join();
}

void TaskLanes::Post(const void* lane, std::function<void()> task) {
  std::vector<std::thread> ended;
  {
    std::lock_guard lock(mutex_);
    if (stop_) return;
    ended.swap(ended_);
    const auto [it, idle] = lanes_.try_emplace(lane);
    it->second.tasks.push_back(std::move(task));
    if (idle) {
      without_thread_.push_back(lane);
      changed_.notify_all();
    }
  }
  for (std::thread& thread : ended) thread.join();
}

void TaskLanes::Run(const void* lane) {
  std::unique_lock lock(mutex_);
  const auto it = lanes_.find(lane);
  while (!stop_ && !it->second.tasks.empty()) {
    std::function<void()> task = std::move(it->second.tasks.front());
    it->second.tasks.pop_front();
    lock.unlock();
    task();
    task = nullptr;  // what it held goes without the lock
    lock.lock();
  }
  if (it->second.thread.joinable()) ended_.push_back(std::move(it->second.thread));
  const auto dropped = lanes_.extract(it);  // destroyed without the lock
  changed_.notify_all();
  lock.unlock();
}

void TaskLanes::RunSpare() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stop_ || !without_thread_.empty(); });
    if (without_thread_.empty()) return;
    const void* const lane = without_thread_.front();
    without_thread_.pop_front();
    try {
      lanes_.at(lane).thread = std::thread([this, lane] { Run(lane); });
      continue;
    } catch (const std::system_error&) {
    }
    lock.unlock();
    Run(lane);
    lock.lock();
  }
}

}  // namespace twinroot::host
