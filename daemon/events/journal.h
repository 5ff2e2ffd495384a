// The journal of what happened: one order for the whole daemon, with cursors that name the place
// after an event. It lives in a file (Open), or in memory alone for tests and probes.
//
// Thread-safe. Append costs one short lock and never waits for the disk: one thread commits what
// came meanwhile, all at once, and only then may anybody see it. Positions count events from 0, and
// "position p" is the place before event number p. event.proto says what consumers may rely on.
#ifndef TWINROOT_DAEMON_EVENTS_JOURNAL_H_
#define TWINROOT_DAEMON_EVENTS_JOURNAL_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "daemon/events/compaction.h"
#include "daemon/events/entry.h"
#include "daemon/events/filter.h"
#include "daemon/events/lossless.h"

namespace twinroot::events {

struct JournalOptions {
  std::string path;
  Limits limits;
  absl::Duration notice = absl::Seconds(1);  // from a compaction's bookmark to the compaction
  size_t in_memory = 16384;                  // committed events that need no disk to be read
  size_t max_waiting = 65536;                // events that wait for the disk; more become a gap
  std::string boot_id;                       // "": the host's
};

struct JournalStats {
  uint64_t kept = 0;            // events that can be read
  uint64_t bytes = 0;           // of the file, in use
  uint64_t waiting = 0;         // for the disk
  uint64_t lost = 0;            // since the start
  uint64_t failed_commits = 0;  // since the start
};

class Journal {
 public:
  // In memory: the last `capacity` events, committed at once.
  explicit Journal(size_t capacity = 65536);
  // As Store::Open says.
  static absl::StatusOr<std::unique_ptr<Journal>> Open(JournalOptions options);
  // Commits everything; if the disk refuses, what waits is lost as if the daemon were killed.
  ~Journal();

  // Sees every appended event, in order, under the journal's lock: metrics use it, and so count
  // lost ones too. Set before the first Append.
  void SetObserver(std::function<void(const v1::Event&)> observer);

  // Fills in cursor, vm_sequence (if `event.vm` is set) and time. A VM's sequence begins anew after
  // the event that says it was deleted.
  void Append(v1::Event event);
  // Waits until everything before `position` is committed, at most so long, and not while the disk
  // refuses; the result is `position`, or what is committed if that is less.
  uint64_t WaitCommitted(uint64_t position, absl::Duration timeout) const;

  // The position after everything appended, committed or not.
  uint64_t next() const;
  // Watches that must miss nothing: events that they were not given are not compacted.
  LosslessWatches& lossless() const;
  // Whether who is about to make events of `vm` has to wait for such a watch, and until when.
  std::optional<absl::Time> HeldUntil(const std::string& vm) const;

  // The cursors after the newest committed event, and before the oldest event kept.
  std::string Cursor() const;
  std::string OldestCursor() const;
  std::string CursorAt(uint64_t position) const;
  // What a journal in a file found when it was opened.
  const v1::DaemonStarted& opening() const;
  JournalStats stats() const;

  // Position after `cursor`. "" means `if_empty`: the beginning, whose events may be gone and then
  // count as missed, or after everything appended so far. kInvalidArgument: malformed.
  // kOutOfRange: another epoch, too old, or from the future; the message names the oldest cursor.
  enum class IfEmpty : uint8_t { kBeginning, kNow };
  enum class IfTooOld : uint8_t { kRefuse, kCount };
  absl::StatusOr<uint64_t> PositionOf(const std::string& cursor, IfEmpty if_empty,
                                      IfTooOld if_too_old = IfTooOld::kRefuse) const;

  // Up to `max` committed events from `position` on, before `end`, that match. May read the disk if
  // ReadsDisk(position). Looks at a bounded number of events: if `more`, go on from `next`.
  struct Page {
    std::vector<SharedEvent> events;
    uint64_t next = 0;
    bool more = false;
    uint64_t missed = 0;       // events that stood before those of this page and are gone
    uint64_t missed_from = 0;  // position of the first event missed
    uint64_t told = 0;         // position after the last event or hole of this page; 0: it has none
  };
  Page Read(uint64_t position, size_t max, const Filter& filter,
            uint64_t end = std::numeric_limits<uint64_t>::max()) const;
  bool ReadsDisk(uint64_t position) const;
  // Events before this position are about to be removed.
  uint64_t horizon() const;

  // Calls `wake` when events were committed or the horizon has moved (perhaps once for several),
  // never under the journal's lock and never after the handle is destroyed. Must not block.
  class Subscription;
  std::shared_ptr<Subscription> Subscribe(std::function<void()> wake);

 private:
  struct State;
  class Writer;
  explicit Journal(std::unique_ptr<State> state);

  std::unique_ptr<State> state_;
  std::unique_ptr<Writer> writer_;  // null: in memory
};

}  // namespace twinroot::events

#endif  // TWINROOT_DAEMON_EVENTS_JOURNAL_H_
