// Runs a unary call: a function that fills the response or says why not. Small ones run at once,
// on gRPC's thread; those that may take long run on a worker, unless their caller has left.
#ifndef TWINROOT_DAEMON_RPC_UNARY_H_
#define TWINROOT_DAEMON_RPC_UNARY_H_

#include <utility>

#include "absl/status/status.h"
#include "daemon/reasons.h"
#include "daemon/rpc/status.h"
#include "daemon/rpc/worker_pool.h"
#include "daemon/status_reason.h"
#include "grpcpp/grpcpp.h"

namespace twinroot::rpc {

template <typename Call>
grpc::ServerUnaryReactor* Inline(grpc::CallbackServerContext* context, Call&& call) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpc(call()));
  return reactor;
}

// Request and response live until Finish.
template <typename Call>
grpc::ServerUnaryReactor* OnWorker(WorkerPool& workers, grpc::CallbackServerContext* context,
                                   Call call) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const bool taken = workers.TryPost([context, reactor, call = std::move(call)] {
    if (context->IsCancelled()) {
      reactor->Finish(
          ToGrpc(absl::CancelledError("the caller left before the call began; nothing changed")));
      return;
    }
    reactor->Finish(ToGrpc(call()));
  });
  if (!taken) {
    reactor->Finish(ToGrpc(WithReason(
        absl::ResourceExhaustedError("too many calls wait in the daemon: try again later"),
        reason::kTooManyCalls)));
  }
  return reactor;
}

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_UNARY_H_
