// What the configuration says about callers: who has which role, and how much each may use.
// Plain values; the functions are pure and thread-safe.
#ifndef TWINROOT_DAEMON_ACCESS_RULES_H_
#define TWINROOT_DAEMON_ACCESS_RULES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "daemon/access/principal.h"
#include "daemon/access/revocations.h"
#include "daemon/access/role.h"

namespace twinroot::access {

// Gives `role` to each of these.
struct Grant {
  Role role = Role::kNone;
  std::vector<uint32_t> uids;
  std::vector<uint32_t> gids;  // the primary group or a supplementary one
  // URI SANs: exact, or a prefix that ends with "/*".
  std::vector<std::string> uris;
};

struct Limits {
  // Of one principal, over all of its connections.
  uint32_t calls_per_principal = 16384;        // under way at once, streams too
  uint32_t connections_per_principal = 4096;   // to the unix socket
  uint32_t streams_per_connection = 4096;      // what is over waits in the client
  uint32_t message_bytes = uint32_t{4} << 20;  // of one request
};

struct Rules {
  std::vector<Grant> grants;
  Revocations revocations;
  Limits limits;
};

// Root, the daemon's own user and the group twinroot-admin, where the host has one, are admins;
// nobody else is anything.
Rules DefaultRules();

// The role that the principal was given at its socket, no other; else the highest that is granted.
Role RoleOf(const std::vector<Grant>& grants, const Principal& principal);

// It showed a certificate that was revoked.
bool IsRevoked(const Revocations& revocations, const Principal& principal);

}  // namespace twinroot::access

#endif  // TWINROOT_DAEMON_ACCESS_RULES_H_
