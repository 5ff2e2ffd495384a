// Runs a unary call: a function that fills the response or says why not. What only looks something
// up runs at once, on gRPC's thread; the rest as CallRunner says, unless its caller has left.
#ifndef TWINROOT_DAEMON_RPC_UNARY_H_
#define TWINROOT_DAEMON_RPC_UNARY_H_

#include <utility>

#include "absl/status/status.h"
#include "daemon/access/gatekeeper.h"
#include "daemon/reasons.h"
#include "daemon/rpc/call_runner.h"
#include "daemon/rpc/context.h"
#include "daemon/rpc/status.h"
#include "daemon/status_reason.h"
#include "grpcpp/grpcpp.h"

namespace twinroot::rpc {

template <typename Call>
grpc::ServerUnaryReactor* Inline(grpc::CallbackServerContext* context, Call&& call) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpc(call()));
  return reactor;
}

inline absl::Status TooManyCalls() {
  return WithReason(
      absl::ResourceExhaustedError("too many calls wait in the daemon: try again later"),
      reason::kTooManyCalls);
}

// Request and response live until Finish.
template <typename Call>
grpc::ServerUnaryReactor* OnWorker(CallRunner& calls, grpc::CallbackServerContext* context,
                                   Call call, Weight weight = Weight::kLarge) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const bool taken = calls.Run(weight, [context, reactor, call = std::move(call)] {
    if (context->IsCancelled()) {
      reactor->Finish(
          ToGrpc(absl::CancelledError("the caller left before the call began; nothing changed")));
      return;
    }
    reactor->Finish(ToGrpc(call()));
  });
  if (!taken) {
    reactor->Finish(ToGrpc(TooManyCalls()));
  }
  return reactor;
}

// The same for a request with a `request_id`, if it has one: then it is made once. It is made even
// if its caller has left, since others may wait for the answer.
template <typename Request, typename Response, typename Call>
grpc::ServerUnaryReactor* OnceOnWorker(Context& context, grpc::CallbackServerContext* server_call,
                                       const Request& request, Response* response, Call call,
                                       Weight weight = Weight::kLarge) {
  if (request.request_id().empty()) {
    return OnWorker(context.calls, server_call, std::move(call), weight);
  }
  grpc::ServerUnaryReactor* reactor = server_call->DefaultReactor();
  const Once::Id id = {access::CallerOf(*server_call), Request::descriptor()->name(),
                       request.request_id()};
  const auto turn = context.once.Begin(
      id, request, [reactor, response](const absl::Status& status, const std::string& answer) {
        if (status.ok()) response->ParseFromString(answer);
        reactor->Finish(ToGrpc(status));
      });
  if (!turn.ok()) {
    reactor->Finish(ToGrpc(turn.status()));
    return reactor;
  }
  if (*turn == Once::Turn::kRepeated) return reactor;
  const auto end = [&context, id, reactor, response](const absl::Status& status) {
    context.once.End(id, status, status.ok() ? response->SerializeAsString() : "");
    reactor->Finish(ToGrpc(status));
  };
  if (!context.calls.Run(weight, [end, call = std::move(call)] { end(call()); })) {
    end(TooManyCalls());
  }
  return reactor;
}

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_UNARY_H_
