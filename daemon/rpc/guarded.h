// A service whose every method first asks for the gatekeeper's verdict: gRPC interceptors can see a
// call but not answer it. Thread-safe, as its service is.
//
// `Api` is the generated class, `methods` are the service's in the order of its proto file. A
// missing, doubled or misplaced one ends the process when the service is made, so none is ever
// served without a guard.
#ifndef TWINROOT_DAEMON_RPC_GUARDED_H_
#define TWINROOT_DAEMON_RPC_GUARDED_H_

#include <cstdlib>

#include "daemon/access/gatekeeper.h"
#include "daemon/rpc/pump.h"
#include "daemon/rpc/status.h"
#include "grpcpp/grpcpp.h"
#include "spdlog/spdlog.h"

namespace twinroot::rpc {

// An upload that is refused before its first chunk.
template <typename Request>
class FailedUpload final : public grpc::ServerReadReactor<Request> {
 public:
  explicit FailedUpload(const absl::Status& status) { this->Finish(ToGrpc(status)); }

 private:
  void OnDone() final { delete this; }
};

template <typename Api, typename Service, auto... methods>
class Guarded final : public Service {
 public:
  template <typename Context>
  explicit Guarded(Context* context) : Service(context) {
    (Guard(methods), ...);
    if (guarded_ != descriptor_->method_count()) Misfit("a method is missing");
  }

 private:
  using Call = grpc::CallbackServerContext;

  template <typename Request, typename Response>
  void Guard(grpc::ServerUnaryReactor* (Service::*method)(Call*, const Request*, Response*)) {
    this->MarkMethodCallback(
        Next<Request>(),
        new grpc::internal::CallbackUnaryHandler<Request, Response>(
            [this, method](Call* call, const Request* request, Response* response) {
              const absl::Status verdict = access::VerdictOn(*call);
              if (verdict.ok()) return (this->*method)(call, request, response);
              grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
              reactor->Finish(ToGrpc(verdict));
              return reactor;
            }));
  }

  template <typename Request, typename Response>
  void Guard(grpc::ServerWriteReactor<Response>* (Service::*method)(Call*, const Request*)) {
    this->MarkMethodCallback(
        Next<Request>(),
        new grpc::internal::CallbackServerStreamingHandler<Request, Response>(
            [this, method](Call* call,
                           const Request* request) -> grpc::ServerWriteReactor<Response>* {
              const absl::Status verdict = access::VerdictOn(*call);
              if (verdict.ok()) return (this->*method)(call, request);
              return new FailedStream<Response>(verdict);
            }));
  }

  template <typename Request, typename Response>
  void Guard(grpc::ServerReadReactor<Request>* (Service::*method)(Call*, Response*)) {
    this->MarkMethodCallback(
        Next<Request>(),
        new grpc::internal::CallbackClientStreamingHandler<Request, Response>(
            [this, method](Call* call, Response* response) -> grpc::ServerReadReactor<Request>* {
              const absl::Status verdict = access::VerdictOn(*call);
              if (verdict.ok()) return (this->*method)(call, response);
              return new FailedUpload<Request>(verdict);
            }));
  }

  // The index of the next method of the proto file, which takes this request (every method has a
  // request of its own).
  template <typename Request>
  int Next() {
    if (guarded_ == descriptor_->method_count() ||
        descriptor_->method(guarded_)->input_type() != Request::descriptor()) {
      Misfit(Request::descriptor()->name().c_str());
    }
    return guarded_++;
  }

  [[noreturn]] void Misfit(const char* what) {
    spdlog::critical("the guard of {} does not fit its proto file: {}", descriptor_->full_name(),
                     what);
    std::abort();
  }

  const google::protobuf::ServiceDescriptor* const descriptor_ =
      google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(
          Api::service_full_name());
  int guarded_ = 0;
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_GUARDED_H_
