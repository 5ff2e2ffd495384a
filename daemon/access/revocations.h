// Client certificates that are good no more although their time is not over: what certificate
// revocation lists (CRLs) name. Immutable; thread-safe.
#ifndef TWINROOT_DAEMON_ACCESS_REVOCATIONS_H_
#define TWINROOT_DAEMON_ACCESS_REVOCATIONS_H_

#include <set>
#include <string>

#include "absl/status/statusor.h"

namespace twinroot::access {

class Revocations {
 public:
  Revocations() = default;

  // The PEM lists of a file, each of which one of the authorities in `client_ca` must have signed.
  // kFailedPrecondition, with the key of the configuration: a file cannot be read, holds no list,
  // or holds one of somebody else's. A list whose time is over counts, and the log says so.
  static absl::StatusOr<Revocations> Read(const std::string& path, const std::string& client_ca);

  bool empty() const { return revoked_.empty(); }
  size_t size() const { return revoked_.size(); }
  // Is this PEM certificate named? One that cannot be parsed is.
  bool Contains(const std::string& certificate) const;

 private:
  std::set<std::string> revoked_;  // issuer and serial number, in DER
};

}  // namespace twinroot::access

#endif  // TWINROOT_DAEMON_ACCESS_REVOCATIONS_H_
