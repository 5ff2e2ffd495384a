#include "daemon/access/gatekeeper.h"

#include <grpc/grpc.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "daemon/access/call.h"
#include "daemon/reasons.h"
#include "daemon/rpc/status.h"

namespace twinroot::access {
namespace {

class Factory final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  Factory(Gatekeeper* gatekeeper, const UnixDoor* door) : gatekeeper_(gatekeeper), door_(door) {}

  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override {
    return new Call(gatekeeper_, door_, info);
  }

 private:
  Gatekeeper* const gatekeeper_;
  const UnixDoor* const door_;
};

}  // namespace

Gatekeeper::Gatekeeper(Rules rules, AuditLog* audit) : audit_(audit), rules_(std::move(rules)) {}

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>
Gatekeeper::MakeInterceptorFactory(const UnixDoor* door) {
  return std::make_unique<Factory>(this, door);
}

void Gatekeeper::Replace(Rules rules) {
  struct Denied {
    grpc_call* call;
    bool revoked;
  };
  std::vector<Denied> denied;
  {
    std::lock_guard lock(mutex_);
    rules_ = std::move(rules);
    for (const auto& [name, calls] : calls_) {
      for (const Call* call : calls) {
        const bool revoked = IsRevoked(rules_.revocations, call->principal());
        if (!revoked && call->Allows(RoleOf(rules_.grants, call->principal()))) continue;
        grpc_call_ref(call->c_call());
        denied.push_back({call->c_call(), revoked});
      }
    }
  }
  // Not under the lock: an end may come back to us at once.
  for (const auto& [call, revoked] : denied) {
    grpc_call_cancel_with_status(
        call, revoked ? GRPC_STATUS_UNAUTHENTICATED : GRPC_STATUS_PERMISSION_DENIED,
        revoked ? "the certificate was revoked" : "the role that this call needs was taken away",
        nullptr);
    grpc_call_unref(call);
  }
}

absl::Status Gatekeeper::Admit(Call* call, uint32_t connections) {
  std::lock_guard lock(mutex_);
  if (IsRevoked(rules_.revocations, call->principal())) return call->Revoked();
  const Role held = RoleOf(rules_.grants, call->principal());
  call->Hold(held);
  if (!call->Allows(held)) return call->Denial();
  const Limits& limits = rules_.limits;
  if (connections > limits.connections_per_principal && !call->IsPublic()) {
    return rpc::QuotaError(
        call->name(),
        absl::StrCat("more than ", limits.connections_per_principal,
                     " connections at once: close some, or use one for many calls"),
        reason::kTooManyConnections);
  }
  auto& calls = calls_[call->key()];
  if (calls.size() >= limits.calls_per_principal) {
    return rpc::QuotaError(call->name(),
                           absl::StrCat(limits.calls_per_principal,
                                        " calls are under way: wait until some of them have ended"),
                           reason::kTooManyCalls);
  }
  calls.insert(call);
  return absl::OkStatus();
}

absl::Status Gatekeeper::Raise(Call* call, Role role) {
  std::lock_guard lock(mutex_);
  call->Need(role);
  call->Hold(RoleOf(rules_.grants, call->principal()));
  return call->Allows(call->held()) ? absl::OkStatus() : call->Denial();
}

void Gatekeeper::Leave(Call* call) {
  std::lock_guard lock(mutex_);
  const auto found = calls_.find(call->key());
  if (found == calls_.end()) return;
  found->second.erase(call);
  if (found->second.empty()) calls_.erase(found);
}

absl::Status VerdictOn(const grpc::CallbackServerContext& context) {
  const Call* call = Call::Of(context);
  if (call == nullptr) return absl::PermissionDeniedError("nobody vouches for this call");
  return call->verdict();
}

absl::Status Require(const grpc::CallbackServerContext& context, Role role) {
  Call* call = Call::Of(context);
  if (call == nullptr) return absl::PermissionDeniedError("nobody vouches for this call");
  return call->gatekeeper()->Raise(call, role);
}

std::string CallerOf(const grpc::CallbackServerContext& context) {
  const Call* call = Call::Of(context);
  return call == nullptr ? "" : call->name();
}

}  // namespace twinroot::access
