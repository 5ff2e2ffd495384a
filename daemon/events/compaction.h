// When the oldest events are removed from the journal's file: in small steps between commits, and
// not before live watchers had time to hear of a later cursor.
//
// Not thread-safe: the writer's own.
#ifndef TWINROOT_DAEMON_EVENTS_COMPACTION_H_
#define TWINROOT_DAEMON_EVENTS_COMPACTION_H_

#include <algorithm>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "daemon/events/store.h"

namespace twinroot::events {

// What is kept; whatever is exceeded first is enforced. The newest event always stays.
struct Limits {
  uint64_t max_events = 1'000'000;
  absl::Duration max_age = absl::Hours(7 * 24);
  uint64_t max_bytes = uint64_t{512} << 20;
};

class Compaction {
 public:
  // `notice`: from the horizon's announcement to the first removal. `store` outlives this object.
  Compaction(const Limits& limits, absl::Duration notice, Store* store);

  // The file holds [first, next), and what is from `keep_from` on must stay. Moves the horizon when
  // it is time to look. True: it moved, and watchers must be told.
  absl::StatusOr<bool> Look(uint64_t first, uint64_t next, uint64_t keep_from, absl::Time now);
  // Events before this are about to be removed.
  uint64_t horizon() const { return horizon_; }

  // Is a step due? It removes events before the horizon; the result is the new `first`.
  bool Due(uint64_t first, uint64_t keep_from, absl::Time now) const {
    return first < std::min(horizon_, keep_from) &&
           now >= std::max(announced_ + notice_, not_before_);
  }
  absl::StatusOr<uint64_t> Step(uint64_t first, uint64_t keep_from);
  // When Look or Step may have something to do although nothing is committed.
  absl::Time Next(uint64_t first, uint64_t next) const;
  // After a failure: nothing is due for a while.
  void Postpone(absl::Time now);
  // Of the file, in use, when it was last looked at.
  uint64_t bytes() const { return bytes_; }

 private:
  // Looking costs a few reads.
  absl::Duration Pause() const { return std::min(absl::Seconds(1), notice_); }
  absl::StatusOr<uint64_t> Target(uint64_t first, uint64_t next, absl::Time now);

  const Limits limits_;
  const absl::Duration notice_;
  Store* const store_;
  uint64_t horizon_ = 0;
  uint64_t bytes_ = 0;
  absl::Time announced_ = absl::UnixEpoch();
  absl::Time looked_ = absl::UnixEpoch();
  uint64_t looked_at_ = 0;  // what `next` was then
  absl::Time not_before_ = absl::UnixEpoch();
};

}  // namespace twinroot::events

#endif  // TWINROOT_DAEMON_EVENTS_COMPACTION_H_
