#include "daemon/socket_claim.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

namespace twinroot {
namespace {

constexpr size_t kMaxPath = sizeof(sockaddr_un::sun_path) - 1;

std::string Reason(int error) { return std::strerror(error); }

// Does somebody accept connections there (who does not use our lock)?
bool Answers(const std::string& path) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return false;
  auto close_fd = absl::MakeCleanup([fd] { close(fd); });
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  // EAGAIN: its backlog is full, so somebody is there.
  return connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ||
         errno == EAGAIN;
}

absl::Status RemoveStale(const std::string& path) {
  struct stat status {};
  if (lstat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrCat("cannot look at ", path, ": ", Reason(errno)));
  }
  if (!S_ISSOCK(status.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, " exists and is no socket: remove it, or choose another place with --socket"));
  }
  if (Answers(path)) {
    return absl::AlreadyExistsError(absl::StrCat(
        "another program serves on ", path, ": stop it, or choose another place with --socket"));
  }
  if (unlink(path.c_str()) != 0 && errno != ENOENT) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot remove the stale socket ", path, ": ", Reason(errno)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status MakeFolder(const std::string& path, const std::string& flag) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (!error && access(path.c_str(), W_OK | X_OK) != 0) {
    error = std::error_code(errno, std::generic_category());
  }
  if (!error) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "cannot use the folder ", path, ": ", error.message(), "; choose another with ", flag));
}

absl::StatusOr<std::unique_ptr<SocketClaim>> SocketClaim::Take(const std::string& path) {
  if (path.size() > kMaxPath) {
    return absl::InvalidArgumentError(absl::StrCat("the socket path has ", path.size(),
                                                   " bytes and a socket's may have ", kMaxPath,
                                                   ": choose a shorter one with --socket"));
  }
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (absl::Status status = MakeFolder(folder.empty() ? "." : folder.string(), "--socket");
      !status.ok()) {
    return status;
  }
  const std::string lock_path = path + ".lock";
  const int lock = open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (lock < 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "cannot open ", lock_path, ": ", Reason(errno), "; choose another place with --socket"));
  }
  std::unique_ptr<SocketClaim> claim(new SocketClaim(lock));
  if (flock(lock, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) {
      return absl::FailedPreconditionError(
          absl::StrCat("cannot lock ", lock_path, ": ", Reason(errno)));
    }
    return absl::AlreadyExistsError(absl::StrCat(
        "another hvd serves on ", path, ": stop it, or choose another place with --socket"));
  }
  if (absl::Status status = RemoveStale(path); !status.ok()) return status;
  return claim;
}

SocketClaim::~SocketClaim() { close(lock_); }

}  // namespace twinroot
