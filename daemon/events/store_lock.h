// The right to write a journal: a lock (flock) on PATH.lock, so that two daemons with one state
// folder do not share a journal. The file stays, because removing it would let two in.
// Not thread-safe.
#ifndef TWINROOT_DAEMON_EVENTS_STORE_LOCK_H_
#define TWINROOT_DAEMON_EVENTS_STORE_LOCK_H_

#include <string>

#include "absl/status/statusor.h"

namespace twinroot::events {

class StoreLock {
 public:
  // kFailedPrecondition: somebody else has it, or the folder cannot be written.
  static absl::StatusOr<StoreLock> Take(const std::string& path);
  StoreLock(StoreLock&& other) noexcept;
  StoreLock& operator=(StoreLock&&) = delete;
  ~StoreLock();

 private:
  explicit StoreLock(int file) : file_(file) {}
  int file_;  // -1: moved from
};

}  // namespace twinroot::events

#endif  // TWINROOT_DAEMON_EVENTS_STORE_LOCK_H_
