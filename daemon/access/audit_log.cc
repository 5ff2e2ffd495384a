#include "daemon/access/audit_log.h"

#include <fcntl.h>
#include <google/protobuf/util/json_util.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "spdlog/spdlog.h"

namespace twinroot::access {
namespace {

constexpr mode_t kOwnersAlone = 0600;

absl::StatusOr<int> OpenToAppend(const std::string& path) {
  const int fd =
      open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, kOwnersAlone);
  // It may have been there before, with another mode.
  if (fd >= 0 && fchmod(fd, kOwnersAlone) == 0) return fd;
  const int error = errno;
  if (fd >= 0) close(fd);
  return absl::FailedPreconditionError(absl::StrCat("cannot write the audit log ", path, ": ",
                                                    std::strerror(error),
                                                    "; choose another place with audit.path"));
}

// One line of JSON with its end.
std::string LineOf(const AuditEntry& entry) {
  std::string line;
  google::protobuf::util::JsonPrintOptions options;
  if (!google::protobuf::util::MessageToJsonString(entry, &line, options).ok()) line = "{}";
  return line + "\n";
}

}  // namespace

AuditLog::AuditLog(int fd, std::function<void()> on_failure)
    : on_failure_(std::move(on_failure)), fd_(fd) {}

AuditLog::~AuditLog() { close(fd_); }

absl::StatusOr<std::unique_ptr<AuditLog>> AuditLog::Open(const std::string& path,
                                                         std::function<void()> on_failure) {
  auto fd = OpenToAppend(path);
  if (!fd.ok()) return fd.status();
  return std::unique_ptr<AuditLog>(new AuditLog(*fd, std::move(on_failure)));
}

void AuditLog::Write(const AuditEntry& entry) {
  const std::string line = LineOf(entry);
  int error = 0;
  {
    std::lock_guard lock(mutex_);
    // Half a line that a full disk left behind must not swallow this one.
    const std::string text = torn_ ? "\n" + line : line;
    ssize_t written = 0;
    do {
      written = write(fd_, text.data(), text.size());
    } while (written < 0 && errno == EINTR);
    if (written == static_cast<ssize_t>(text.size())) {
      torn_ = false;
    } else {
      error = written < 0 ? errno : ENOSPC;
      torn_ = torn_ || written > 0;
    }
  }
  if (error == 0) return;
  spdlog::error("the audit log cannot be written: {}; this line is only here: {}",
                std::strerror(error), line.substr(0, line.size() - 1));
  on_failure_();
}

absl::Status AuditLog::Reopen(const std::string& path) {
  auto fd = OpenToAppend(path);
  if (!fd.ok()) return fd.status();
  std::lock_guard lock(mutex_);
  close(std::exchange(fd_, *fd));
  torn_ = false;
  return absl::OkStatus();
}

}  // namespace twinroot::access
