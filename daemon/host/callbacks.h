// Callbacks that somebody holds a handle to: dropping the handle cancels, and once the drop has
// returned the callback does not run any more. Thread-safe. A callback may drop its own handle.
#ifndef TWINROOT_DAEMON_HOST_CALLBACKS_H_
#define TWINROOT_DAEMON_HOST_CALLBACKS_H_

#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "daemon/host/vm.h"

namespace twinroot::host {

template <typename... Args>
class Callbacks {
 public:
  using Function = std::function<void(Args...)>;

  std::unique_ptr<Vm::Waiter> Add(Function function) {
    auto entry = std::make_shared<Entry>();
    entry->function = std::move(function);
    std::lock_guard lock(mutex_);
    std::erase_if(entries_, [](const std::weak_ptr<Entry>& e) { return e.expired(); });
    entries_.push_back(entry);
    return std::make_unique<Handle>(std::move(entry));
  }

  void Call(Args... args) {
    std::vector<std::weak_ptr<Entry>> entries;
    {
      std::lock_guard lock(mutex_);
      entries = entries_;
    }
    for (const std::weak_ptr<Entry>& weak : entries) {
      if (const std::shared_ptr<Entry> entry = weak.lock()) {
        std::lock_guard lock(entry->mutex);
        if (entry->function) Function(entry->function)(args...);
      }
    }
  }

 private:
  struct Entry {
    std::recursive_mutex mutex;  // recursive: a callback may drop its own handle
    Function function;           // empty once cancelled
  };
  class Handle : public Vm::Waiter {
   public:
    explicit Handle(std::shared_ptr<Entry> entry) : entry_(std::move(entry)) {}
    ~Handle() override {
      std::lock_guard lock(entry_->mutex);
      entry_->function = nullptr;
    }

   private:
    std::shared_ptr<Entry> entry_;
  };

  std::mutex mutex_;
  std::vector<std::weak_ptr<Entry>> entries_;  // guarded by mutex_
};

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_CALLBACKS_H_
