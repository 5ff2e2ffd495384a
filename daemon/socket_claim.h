// The right to serve on a unix socket path: at most one daemon has it, however it died before.
//
// Not thread-safe. The right is a lock (flock) on PATH.lock, which lies beside the socket so that
// all who could serve there meet at it; the file stays, because removing it would let two in.
#ifndef TWINROOT_DAEMON_SOCKET_CLAIM_H_
#define TWINROOT_DAEMON_SOCKET_CLAIM_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace twinroot {

class SocketClaim {
 public:
  // Makes the folder if it is missing, takes the lock, removes a stale socket. kInvalidArgument:
  // the path is too long for a socket. kAlreadyExists: another daemon serves there.
  // kFailedPrecondition: something that is no socket is there, or the folder cannot be used.
  static absl::StatusOr<std::unique_ptr<SocketClaim>> Take(const std::string& path);
  ~SocketClaim();
  SocketClaim(const SocketClaim&) = delete;
  SocketClaim& operator=(const SocketClaim&) = delete;

 private:
  explicit SocketClaim(int lock) : lock_(lock) {}
  const int lock_;
};

// A private folder at `path`, made if it is missing. kFailedPrecondition: it cannot be used;
// `flag` names the option to change.
absl::Status MakeFolder(const std::string& path, const std::string& flag);

}  // namespace twinroot

#endif  // TWINROOT_DAEMON_SOCKET_CLAIM_H_
