// Who calls: a user of this host behind a unix socket, or a client certificate behind TCP.
// Plain values; the functions are thread-safe.
#ifndef TWINROOT_DAEMON_ACCESS_PRINCIPAL_H_
#define TWINROOT_DAEMON_ACCESS_PRINCIPAL_H_

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "daemon/access/role.h"

namespace twinroot::access {

// Of a unix socket, as the kernel recorded it when the socket was connected.
struct User {
  uint32_t uid = 0;
  uint32_t gid = 0;
  std::vector<uint32_t> groups;  // supplementary
  std::string name;              // "" if the host knows none
  int32_t pid = 0;               // of the process that connected; it may have passed the socket on

  // The same rights; the process may be another.
  bool SameRights(const User& other) const {
    return uid == other.uid && gid == other.gid && groups == other.groups;
  }
};

struct Principal {
  std::optional<User> user;
  // Else, of a client certificate: its URI SANs, and where it calls from.
  std::vector<std::string> uris;
  std::string address;
  std::string certificate;  // PEM
  // The role that the socket it came through gives to whoever uses it; kNone: the grants decide.
  Role given = Role::kNone;

  // By which limits count and the audit log names: "uid:1000", "spiffe://example.org/ops".
  std::string Name() const;
};

// The user at the other end of a connected unix socket, without a name.
absl::StatusOr<User> UserAtPeer(int fd);

// The name of a user, or "". Asks the host's databases, which may take long.
std::string UserName(uint32_t uid);

// The id of a name or of a number in decimal, if this host has a user or group of that name.
std::optional<uint32_t> FindUser(const std::string& name);
std::optional<uint32_t> FindGroup(const std::string& name);

}  // namespace twinroot::access

#endif  // TWINROOT_DAEMON_ACCESS_PRINCIPAL_H_
