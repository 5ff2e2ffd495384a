// The file that says who did what: one JSON line (AuditEntry) for every call that changes something
// or gives away what a guest wrote, and for every denied one.
//
// Thread-safe. A line is in the kernel's hands before the caller is answered; it is not synced to
// disk. A line that cannot be written does not stop the call: it goes to the daemon's log in full,
// as an error, and `on_failure` is called (a metric counts).
#ifndef TWINROOT_DAEMON_ACCESS_AUDIT_LOG_H_
#define TWINROOT_DAEMON_ACCESS_AUDIT_LOG_H_

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/access/audit_entry.pb.h"

namespace twinroot::access {

class AuditLog {
 public:
  // Appends to the file, which is made with mode 0600. kFailedPrecondition: it cannot be opened.
  static absl::StatusOr<std::unique_ptr<AuditLog>> Open(const std::string& path,
                                                        std::function<void()> on_failure);
  ~AuditLog();
  AuditLog(const AuditLog&) = delete;
  AuditLog& operator=(const AuditLog&) = delete;

  void Write(const AuditEntry& entry);
  // Goes on in a new file at `path` (the old one was rotated away, or the path has changed). On an
  // error it goes on in the old one.
  absl::Status Reopen(const std::string& path);

 private:
  AuditLog(int fd, std::function<void()> on_failure);

  const std::function<void()> on_failure_;
  std::mutex mutex_;
  int fd_;             // `mutex_`
  bool torn_ = false;  // `mutex_`; the last line has no end
};

}  // namespace twinroot::access

#endif  // TWINROOT_DAEMON_ACCESS_AUDIT_LOG_H_
