// Callbacks that want to hear that something happened: watchers of the journal, streams that end
// when the daemon drains, callers that wait for a VM.
//
// Thread-safe. Invariants: 1. a callback is not called any more once its handle's destructor has
// returned (which waits for a call under way). 2. Callbacks run without the list's lock: they may
// add, call, and drop any handle, their own too. They must not block.
#ifndef TWINROOT_DAEMON_CALLBACKS_H_
#define TWINROOT_DAEMON_CALLBACKS_H_

#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace twinroot {

// Keeps a callback in its list; may outlive the list.
class CallbackHandle {
 public:
  virtual ~CallbackHandle() = default;
};

template <typename... Args>
class Callbacks {
 public:
  using Function = std::function<void(Args...)>;

  [[nodiscard]] std::unique_ptr<CallbackHandle> Add(Function function) {
    auto entry = std::make_shared<Entry>();
    entry->function = std::move(function);
    state_->Replace([&](Entries& entries) { entries.push_back(entry); });
    return std::make_unique<Handle>(state_, std::move(entry));
  }

  void Call(Args... args) const {
    const std::shared_ptr<const Entries> entries = state_->Get();
    for (const std::shared_ptr<Entry>& entry : *entries) {
      std::lock_guard lock(entry->mutex);
      // A copy: the function may drop its own handle, which empties the entry.
      if (entry->function) Function(entry->function)(args...);
    }
  }

 private:
  struct Entry {
    std::recursive_mutex mutex;  // recursive: a callback may drop its own handle
    Function function;           // empty: its handle is gone
  };
  using Entries = std::vector<std::shared_ptr<Entry>>;

  // The entries are replaced, never changed: who calls them takes one reference and no copy.
  class State {
   public:
    std::shared_ptr<const Entries> Get() const {
      std::lock_guard lock(mutex_);
      return entries_;
    }
    template <typename Change>
    void Replace(const Change& change) {
      std::lock_guard lock(mutex_);
      auto changed = std::make_shared<Entries>(*entries_);
      change(*changed);
      entries_ = std::move(changed);
    }

   private:
    mutable std::mutex mutex_;
    std::shared_ptr<const Entries> entries_ = std::make_shared<const Entries>();
  };

  class Handle : public CallbackHandle {
   public:
    Handle(std::shared_ptr<State> state, std::shared_ptr<Entry> entry)
        : state_(std::move(state)), entry_(std::move(entry)) {}
    ~Handle() override {
      state_->Replace([&](Entries& entries) { std::erase(entries, entry_); });
      // Somebody may have taken the old entries: they find this one empty.
      std::lock_guard lock(entry_->mutex);
      entry_->function = nullptr;
    }

   private:
    const std::shared_ptr<State> state_;
    const std::shared_ptr<Entry> entry_;
  };

  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace twinroot

#endif  // TWINROOT_DAEMON_CALLBACKS_H_
