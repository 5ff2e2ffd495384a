// EventService: the journal as a stream and in pages, and decisions on waiting conversions.
// Thread-safe.
#ifndef TWINROOT_DAEMON_RPC_EVENT_SERVICE_H_
#define TWINROOT_DAEMON_RPC_EVENT_SERVICE_H_

#include "absl/status/status.h"
#include "daemon/rpc/context.h"
#include "grpcpp/grpcpp.h"
#include "twinroot/v1/event.grpc.pb.h"

namespace twinroot::rpc {

class EventService : public v1::EventService::CallbackService {
 public:
  // `context` outlives the service.
  explicit EventService(Context* context) : context_(context) {}

  grpc::ServerWriteReactor<v1::WatchEventsResponse>* WatchEvents(
      grpc::CallbackServerContext* call, const v1::WatchEventsRequest* request) override;
  grpc::ServerUnaryReactor* ListEvents(grpc::CallbackServerContext* call,
                                       const v1::ListEventsRequest* request,
                                       v1::ListEventsResponse* response) override;
  grpc::ServerUnaryReactor* ListConversions(grpc::CallbackServerContext* call,
                                            const v1::ListConversionsRequest* request,
                                            v1::ListConversionsResponse* response) override;
  grpc::ServerUnaryReactor* ResolveConversion(grpc::CallbackServerContext* call,
                                              const v1::ResolveConversionRequest* request,
                                              v1::ResolveConversionResponse* response) override;

 private:
  absl::Status List(const v1::ListEventsRequest& request, v1::ListEventsResponse* response);
  absl::Status Resolve(const v1::ResolveConversionRequest& request,
                       v1::ResolveConversionResponse* response);

  Context* const context_;
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_EVENT_SERVICE_H_
