// Callbacks that want to hear that something happened: watchers of the journal, streams that end
// when the daemon drains, streams that send a bookmark now and then.
//
// Thread-safe. Invariants: 1. a callback is never called after its handle is destroyed (the
// destructor waits for one under way, so a callback must not destroy its own handle). 2. Callbacks
// run without the list's lock: they may add and wake, and must not block.
#ifndef TWINROOT_DAEMON_EVENTS_WAKE_LIST_H_
#define TWINROOT_DAEMON_EVENTS_WAKE_LIST_H_

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace twinroot::events {

class WakeList {
 private:
  struct Entry;
  struct State;

 public:
  // Keeps a callback in the list; may outlive the list.
  class Handle {
   public:
    Handle(std::shared_ptr<State> state, std::shared_ptr<Entry> entry);
    ~Handle();
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;

   private:
    std::shared_ptr<State> state_;
    std::shared_ptr<Entry> entry_;
  };

  WakeList();

  [[nodiscard]] std::unique_ptr<Handle> Add(std::function<void()> wake);
  void WakeAll() const;

 private:
  using Entries = std::vector<std::shared_ptr<Entry>>;
  std::shared_ptr<State> state_;
};

}  // namespace twinroot::events

#endif  // TWINROOT_DAEMON_EVENTS_WAKE_LIST_H_
