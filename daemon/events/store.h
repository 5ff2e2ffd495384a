// The journal's file: events in the order of their positions, in SQLite's WAL mode.
//
// Commits write the log of SQLite without waiting for the disk (synchronous=NORMAL): a killed
// process loses nothing that was committed, a host that goes down may lose the end. So an open
// store is marked as such, with the boot it is of; the mark is taken away, durably, by Close. A
// store that is found marked and of another boot may have lost its end: it gets a new epoch.
//
// Commit, DropBefore, Expired, bytes and Close: one thread at a time. Read: any thread.
#ifndef TWINROOT_DAEMON_EVENTS_STORE_H_
#define TWINROOT_DAEMON_EVENTS_STORE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "daemon/events/entry.h"
#include "daemon/events/filter.h"
#include "daemon/events/sqlite.h"
#include "daemon/events/store_lock.h"

namespace twinroot::events {

class Store {
 public:
  // What the file says when it is opened.
  struct Opening {
    v1::DaemonStarted::PreviousEnd previous_end = v1::DaemonStarted::PREVIOUS_END_NONE;
    std::string epoch;
    bool epoch_kept = false;
    uint64_t first = 0;  // position before the oldest event
    uint64_t next = 0;   // position after the newest
    std::map<std::string, uint64_t> vm_sequences;
  };

  // A file that is no journal of ours, or of a newer version, or damaged is set aside under another
  // name, and a new one made. All of it is searched for damage if it was not closed; what is found
  // later, while it is read, counts as lost. kFailedPrecondition: another daemon has it, or the
  // folder cannot be written; the message says what to do. `boot_id` names the host's boot, "" if
  // nobody knows.
  static absl::StatusOr<std::unique_ptr<Store>> Open(const std::string& path,
                                                     const std::string& boot_id);
  ~Store();

  const Opening& opening() const { return opening_; }

  // Adds events and holes, all or none. Repeating a commit that failed is harmless.
  absl::Status Commit(const std::vector<Entry>& entries);

  // Up to `max` entries from `position` on, before `end`, in order; those that `filter` does not
  // want come as kLeftOut. Events that are gone are missing in between.
  absl::StatusOr<std::vector<Entry>> Read(uint64_t position, uint64_t end, size_t max,
                                          const Filter& filter);

  // Removes at most `max` entries, the oldest ones, that begin before `limit`; the newest entry
  // stays. The result is the position before the oldest one left.
  absl::StatusOr<uint64_t> DropBefore(uint64_t limit, size_t max);
  // The position after the newest of the `max` oldest entries that is older than `time`; 0: none.
  absl::StatusOr<uint64_t> Expired(absl::Time time, size_t max);
  // Bytes in use.
  absl::StatusOr<uint64_t> Bytes();

  // Everything was committed and is on the disk. Without it the store counts as killed.
  absl::Status Close();

 private:
  struct Statements;

  Store(Database writer, Database reader);
  static absl::StatusOr<std::unique_ptr<Store>> OpenFile(const std::string& path,
                                                         const std::string& boot_id,
                                                         StoreLock* lock);
  absl::Status Prepare();
  absl::Status Load(const std::string& boot_id);

  std::optional<StoreLock> lock_;  // held from Open on
  Opening opening_;
  Database writer_;
  std::mutex read_mutex_;  // guards reader_, its statement, and scratch_
  Database reader_;
  v1::Event scratch_;
  std::unique_ptr<Statements> statements_;
};

}  // namespace twinroot::events

#endif  // TWINROOT_DAEMON_EVENTS_STORE_H_
