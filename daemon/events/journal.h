// The journal of what happened: one order for the whole daemon, in memory (the last `capacity`
// events), with cursors "{epoch}-{sequence}" that name the place after an event.
//
// Thread-safe. Append costs one short lock; watchers are told by a callback that must not block.
#ifndef TWINROOT_DAEMON_EVENTS_JOURNAL_H_
#define TWINROOT_DAEMON_EVENTS_JOURNAL_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "twinroot/v1/event.pb.h"

namespace twinroot::events {

class Journal {
 public:
  explicit Journal(size_t capacity = 65536);
  ~Journal();

  // Sees every appended event, in order, under the journal's lock: metrics use it, so that counts
  // agree with the events exactly. Set before the first Append.
  void SetObserver(std::function<void(const v1::Event&)> observer);

  // Fills in cursor, vm_sequence (if `event.vm` is set) and time.
  void Append(v1::Event event);

  // The cursor after the newest event.
  std::string Cursor() const;
  // The cursor before the oldest event kept.
  std::string OldestCursor() const;

  // Position after `cursor` ("" means `if_empty`: the beginning, whose events
  // may be gone and then count as missed, or now). kInvalidArgument: malformed.
  // kOutOfRange: another epoch, too old, or from the future; the message names the oldest cursor.
  enum class IfEmpty : uint8_t { kBeginning, kNow };
  enum class IfTooOld : uint8_t { kRefuse, kCount };
  absl::StatusOr<uint64_t> PositionOf(const std::string& cursor, IfEmpty if_empty,
                                      IfTooOld if_too_old = IfTooOld::kRefuse) const;
  std::string CursorAt(uint64_t position) const;
  // Events kept now.
  size_t size() const;

  // Up to `max` events from `position` on, before `end`, that match, and the position to go on
  // from. `missed` counts events that were dropped before they could be read (position was too old
  // meanwhile).
  struct Page {
    std::vector<v1::Event> events;
    uint64_t next = 0;
    uint64_t missed = 0;
    uint64_t missed_from = 0;  // position of the first event missed
  };
  Page Read(uint64_t position, size_t max, const std::string& vm_filter,
            uint64_t end = std::numeric_limits<uint64_t>::max()) const;

  // Calls `wake` after each Append (perhaps once for several), from the appending thread, never
  // under the journal's lock and never after the returned handle is destroyed. Must not block.
  class Subscription;
  std::shared_ptr<Subscription> Subscribe(std::function<void()> wake);

  // A deleted VM's name may be used again: its sequence starts over.
  void ForgetVm(const std::string& vm);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace twinroot::events

#endif  // TWINROOT_DAEMON_EVENTS_JOURNAL_H_
