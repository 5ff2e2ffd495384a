// The sockets that whoever started hvd has opened for it: systemd's socket activation,
// sd_listen_fds(3), and each socket's name says what it is.
//
//   admin     the socket for everything: callers have the roles that the configuration grants
//   operator  callers are operators, whoever they are, root too
//   viewer    callers are viewers, whoever they are, root too
#ifndef TWINROOT_DAEMON_GIVEN_SOCKETS_H_
#define TWINROOT_DAEMON_GIVEN_SOCKETS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "daemon/access/unix_door.h"

namespace twinroot {

// Those that the environment (LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES) says are this process's; to
// be taken once. None: nobody gave any. kInvalidArgument: the variables contradict each other, a
// name is none of the above, or something is no unix socket that listens.
absl::StatusOr<std::vector<access::GivenSocket>> TakeGivenSockets();

}  // namespace twinroot

#endif  // TWINROOT_DAEMON_GIVEN_SOCKETS_H_
