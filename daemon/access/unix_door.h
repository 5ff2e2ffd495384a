// The unix sockets: accepts connections, remembers who is behind each, and hands them to gRPC.
//
// gRPC 1.51 tells no caller's uid by itself. A connection that is given to it as a file descriptor
// has the peer name "fd:NUMBER", which no client can choose; so the number names the connection,
// for as long as it belongs to no other. (Tried beside it: an acceptor or a server for each user
// knows the user, but not the process, and must be made before the first call; a proxy copies
// every byte.)
//
// Thread-safe. Invariants: 1. a number that was somebody's is given to somebody with other
// rights, or through another socket, only when its connection has been over for `kQuarantine`, so a
// call that gRPC delivers late is never another's. 2. Numbers come from above those that the
// daemon's own files use.
#ifndef TWINROOT_DAEMON_ACCESS_UNIX_DOOR_H_
#define TWINROOT_DAEMON_ACCESS_UNIX_DOOR_H_

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "daemon/access/principal.h"
#include "daemon/access/role.h"

namespace twinroot::access {

// A unix socket that somebody else has made, and listens on (systemd's socket activation).
struct GivenSocket {
  int fd = -1;
  std::string path;
  // To whoever comes through it, whatever else they are; kNone: what the grants say.
  Role gives = Role::kNone;
};

struct DoorOptions {
  std::string path;  // nothing is there; "": no socket of our own
  mode_t mode = 0600;
  std::optional<uint32_t> gid;  // the socket's group, if not the daemon's
  absl::Duration quarantine = absl::Seconds(10);
  // A connection without a call for so long is closed; clients make a new one when they need it.
  absl::Duration silence = absl::Minutes(2);
  // Of one user at once; what is over is closed before it says a word.
  uint32_t most_of_user = 8192;
  std::vector<GivenSocket> given = {};  // the door closes them and leaves their paths alone
};

class UnixDoor {
 public:
  struct Connection {
    Principal principal;
    // How many connections its user had, this one included, when it came.
    uint32_t of_user = 0;
    std::atomic<bool> called{false};
  };

  // Binds and listens; connections wait until Serve. kUnavailable: it cannot be bound.
  // kFailedPrecondition: its group or mode cannot be set.
  static absl::StatusOr<std::unique_ptr<UnixDoor>> Make(const DoorOptions& options);
  ~UnixDoor();

  // Accepts from now on, in a thread of its own. `admit` owns the descriptor that it is given.
  void Serve(std::function<void(int)> admit);
  // Accepts no more, ends connections that never carried a call, removes its own socket.
  void Close();
  // Calls `done` when the thread that accepts has come around; never, if it stands still.
  void AskProgress(std::function<void()> done);

  // Whose connection a gRPC peer name ("fd:70001") is; null if it is none of this door's. The call
  // that asks keeps the connection from being taken for a silent one.
  std::shared_ptr<const Connection> Find(const std::string& peer) const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Open {
    int number = -1;  // gRPC's descriptor
    std::shared_ptr<Connection> connection;
    Clock::time_point since;
  };
  struct Entry {
    std::shared_ptr<Connection> connection;
    std::optional<Clock::time_point> end;
  };

  struct Listener {
    int fd = -1;
    Role gives = Role::kNone;
  };

  // `own`: the listener at options.path, or -1.
  UnixDoor(int own, DoorOptions options);
  void Run();
  void ComeAround();
  void Accept(const Listener& listener);
  void Welcome(int fd, Role given);
  int MoveToFreshNumber(int fd, const Principal& principal);
  void End(int watch);
  void Sweep();
  const std::string& NameOf(uint32_t uid);

  const DoorOptions options_;
  std::vector<Listener> listeners_;
  const int epoll_;
  const int wake_;
  std::function<void(int)> admit_;
  std::thread thread_;
  std::atomic<bool> closing_{false};

  // The thread's alone.
  int first_number_ = 0;
  int end_number_ = 0;
  int next_number_ = 0;
  std::unordered_map<uint32_t, std::string> names_;
  std::unordered_map<int, Open> open_;               // by our own descriptor of the connection
  std::unordered_map<uint32_t, uint32_t> of_users_;  // open connections

  mutable std::mutex mutex_;
  // Below: `mutex_`.
  std::unordered_map<int, Entry> entries_;  // by number
  std::vector<std::function<void()>> asked_;
};

}  // namespace twinroot::access

#endif  // TWINROOT_DAEMON_ACCESS_UNIX_DOOR_H_
