// One call as the gatekeeper sees it: an interceptor that lives as long as the call does.
// gRPC calls it from one thread at a time for the beginning and for the status.
#ifndef TWINROOT_DAEMON_ACCESS_CALL_H_
#define TWINROOT_DAEMON_ACCESS_CALL_H_

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "daemon/access/audit_entry.pb.h"
#include "daemon/access/gatekeeper.h"
#include "daemon/access/method_table.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/support/server_interceptor.h"

namespace twinroot::access {

class Call final : public grpc::experimental::Interceptor {
 public:
  Call(Gatekeeper* gatekeeper, const UnixDoor* door, grpc::experimental::ServerRpcInfo* info);
  ~Call() override;

  void Intercept(grpc::experimental::InterceptorBatchMethods* batch) override;

  // Null if no gatekeeper saw the call.
  static Call* Of(const grpc::CallbackServerContext& context);

  const absl::Status& verdict() const { return verdict_; }
  const Principal& principal() const { return principal_; }
  Gatekeeper* gatekeeper() const { return gatekeeper_; }
  const std::string& name() const { return name_; }
  // By what its limit counts: the principal; calls that are free for all count apart, so that
  // health is heard from who has many others under way.
  std::string key() const { return IsPublic() ? "free for all: " + name_ : name_; }
  // The role that the method needs; no row: nobody has it.
  bool Allows(Role held) const { return rule_ != nullptr && held >= RoleNeeded(); }
  // Free for all: health and reflection.
  bool IsPublic() const { return rule_ != nullptr && rule_->role == Role::kNone; }
  // The role that its caller holds as it begins.
  void Hold(Role held) { held_ = held; }
  // What this call asks for needs more than its method does.
  void Need(Role role) { need_ = role; }
  Role held() const { return held_; }
  absl::Status Denial() const;
  absl::Status Revoked() const;
  grpc_call* c_call() const { return info_->server_context()->c_call(); }

 private:
  Role RoleNeeded() const { return std::max(rule_->role, need_); }
  void Begin(grpc::experimental::InterceptorBatchMethods* batch);
  void NameResource(const void* request);
  void End(const std::string& code, const std::string& reason);

  Gatekeeper* const gatekeeper_;
  const UnixDoor* const door_;
  grpc::experimental::ServerRpcInfo* const info_;
  const MethodRule* const rule_;
  const absl::Time begin_ = absl::Now();

  Principal principal_;
  std::string name_;  // the principal's
  Role held_ = Role::kNone;
  Role need_ = Role::kNone;
  std::string self_;  // what VerdictOn finds: this object's address
  absl::Status verdict_;
  bool begun_ = false;
  bool audited_ = false;  // its line is written, or none is needed
  AuditEntry entry_;
};

}  // namespace twinroot::access

#endif  // TWINROOT_DAEMON_ACCESS_CALL_H_
