// The newest entries of the journal, in memory: committed ones, which readers may see, then those
// that wait for the writer. Bounded: what finds no room is lost, as one hole that grows.
//
// Not thread-safe: under the journal's lock. Invariants: 1. the entries join without a hole between
// them. 2. An entry that the writer has taken is not changed any more.
#ifndef TWINROOT_DAEMON_EVENTS_TAIL_H_
#define TWINROOT_DAEMON_EVENTS_TAIL_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "daemon/events/entry.h"

namespace twinroot::events {

class Tail {
 public:
  // Empty, before event number `next`. Keeps `keep` committed entries; `max_waiting` may wait.
  Tail(uint64_t next, size_t keep, size_t max_waiting)
      : keep_(keep), max_waiting_(max_waiting), committed_(next), taken_(next), next_(next) {}

  // The position before the oldest entry here; before what was committed; before the next event.
  uint64_t first() const { return entries_.empty() ? next_ : entries_.front().position; }
  uint64_t committed() const { return committed_; }
  uint64_t next() const { return next_; }
  size_t waiting() const { return waiting_; }

  // The event takes the position next(). False: there is no room, and it is lost.
  bool Append(SharedEvent event);

  // The oldest entries that wait, for the writer to commit: they are taken now.
  std::vector<Entry> Take(size_t max);
  // Everything before `end` is committed. The result is what need not be kept any more; free it
  // without the lock.
  std::vector<Entry> Commit(uint64_t end);

  // Up to `max` committed entries from `position` on, before `end`; first() <= position.
  std::vector<Entry> Read(uint64_t position, uint64_t end, size_t max) const;

 private:
  const size_t keep_;
  const size_t max_waiting_;
  std::deque<Entry> entries_;
  size_t waiting_ = 0;  // at the end of entries_
  uint64_t committed_;
  uint64_t taken_;  // the writer has taken what is before
  uint64_t next_;
};

}  // namespace twinroot::events

#endif  // TWINROOT_DAEMON_EVENTS_TAIL_H_
