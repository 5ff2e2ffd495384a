// Decides about every call before its method runs: who calls, may they, do they stay within their
// limits; and tells the audit log how it ended.
//
// Thread-safe. Walk of a call: the interceptor finds the principal and decides; rpc/guarded.h asks
// for the verdict before it runs the method; the interceptor sees the status that is sent.
// Invariants: 1. a call that no interceptor saw, or whose method has no row in the table, is
// denied. 2. When rules are replaced, calls under way that they no longer allow end with
// PERMISSION_DENIED.
#ifndef TWINROOT_DAEMON_ACCESS_GATEKEEPER_H_
#define TWINROOT_DAEMON_ACCESS_GATEKEEPER_H_

#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "absl/status/status.h"
#include "daemon/access/audit_log.h"
#include "daemon/access/denial_limit.h"
#include "daemon/access/rules.h"
#include "daemon/access/unix_door.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_interceptor.h"

namespace twinroot::access {

class Call;

class Gatekeeper {
 public:
  // `audit` may be null: no audit log. It outlives this object.
  Gatekeeper(Rules rules, AuditLog* audit);

  // Roles and the limits of principals; those of connections and messages are the server's.
  void Replace(Rules rules);

  // For one server, which ends before this object and the door do.
  std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> MakeInterceptorFactory(
      const UnixDoor* door);

 private:
  friend class Call;
  friend absl::Status Require(const grpc::CallbackServerContext& context, Role role);

  absl::Status Admit(Call* call, uint32_t connections);
  absl::Status Raise(Call* call, Role role);
  void Leave(Call* call);

  AuditLog* const audit_;
  DenialLimit denials_;
  std::mutex mutex_;
  // Below: `mutex_`.
  std::shared_ptr<const Rules> rules_;
  // The admitted calls, by key.
  std::unordered_map<std::string, std::unordered_set<Call*>> calls_;
};

// Whether the method may run; else the error to answer with.
absl::Status VerdictOn(const grpc::CallbackServerContext& context);
// For what in a request needs a higher role than the method: the error to answer with if the caller
// does not have it. The call ends when the role is taken away.
absl::Status Require(const grpc::CallbackServerContext& context, Role role);
// Who calls, as Principal::Name says it.
std::string CallerOf(const grpc::CallbackServerContext& context);

}  // namespace twinroot::access

#endif  // TWINROOT_DAEMON_ACCESS_GATEKEEPER_H_
