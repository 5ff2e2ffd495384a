// Watches whose caller must miss nothing: while one of them is too far behind, whoever makes events
// for it waits, but never longer than the watch asked for.
//
// Thread-safe. A watch holds while it is more than kRoom events behind, counting those that wait
// for the disk; makers ask before they begin, so a few more may come from what is under way. A
// watch that held for as long as it may is expired: it holds nobody any more, and ends. Without
// watches, asking costs one load.
#ifndef TWINROOT_DAEMON_EVENTS_LOSSLESS_H_
#define TWINROOT_DAEMON_EVENTS_LOSSLESS_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "daemon/callbacks.h"
#include "daemon/events/filter.h"

namespace twinroot::events {

class LosslessWatches {
 public:
  static constexpr uint64_t kRoom = 1024;

  class Watch;

  // Stands at `position`; holds each time at most so long.
  std::shared_ptr<Watch> Add(Filter filter, uint64_t position, absl::Duration hold);
  // The caller of the watch was given everything before `position`; `next` is the journal's end.
  void Reached(Watch& watch, uint64_t position, uint64_t next);
  void Remove(Watch& watch);

  bool any() const { return count_.load(std::memory_order_acquire) != 0; }
  // Who makes events of `vm` has to wait; ask again when there is room, or at that time. nullopt:
  // go on.
  std::optional<absl::Time> HeldUntil(const std::string& vm, uint64_t next, absl::Time now);
  // Expires what held for too long although nobody asked.
  void Look(uint64_t next, absl::Time now);
  // Called when there may be room, or a watch expired. Must not block.
  [[nodiscard]] std::unique_ptr<CallbackHandle> OnChange(std::function<void()> wake) {
    return changed_.Add(std::move(wake));
  }

  // Events from here on are not given to every watch yet.
  uint64_t oldest() const;

 private:
  // Under mutex_. True: the watch holds. Sets `expired` if it just expired.
  static bool Holds(Watch& watch, uint64_t next, absl::Time now, bool& expired);

  std::atomic<uint64_t> count_{0};
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<Watch>> watches_;  // guarded by mutex_
  Callbacks<> changed_;
};

class LosslessWatches::Watch {
 public:
  bool expired() const { return expired_.load(std::memory_order_acquire); }
  absl::Duration hold() const { return hold_; }

 private:
  friend class LosslessWatches;
  Watch(Filter filter, uint64_t position, absl::Duration hold)
      : filter_(std::move(filter)), hold_(hold), position_(position) {}

  const Filter filter_;
  const absl::Duration hold_;
  std::atomic<bool> expired_{false};
  // Guarded by the watches' mutex.
  uint64_t position_;
  std::optional<absl::Time> since_;  // it holds
};

}  // namespace twinroot::events

#endif  // TWINROOT_DAEMON_EVENTS_LOSSLESS_H_
