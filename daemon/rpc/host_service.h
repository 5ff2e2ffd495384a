// HostService: what this host can do, and whether it takes VMs. Thread-safe.
#ifndef TWINROOT_DAEMON_RPC_HOST_SERVICE_H_
#define TWINROOT_DAEMON_RPC_HOST_SERVICE_H_

#include "daemon/rpc/context.h"
#include "grpcpp/grpcpp.h"
#include "twinroot/v1/host.grpc.pb.h"

namespace twinroot::rpc {

class HostService : public v1::HostService::CallbackService {
 public:
  // `context` outlives the service.
  explicit HostService(Context* context) : context_(context) {}

  grpc::ServerUnaryReactor* GetHost(grpc::CallbackServerContext* call,
                                    const v1::GetHostRequest* request,
                                    v1::GetHostResponse* response) override;
  grpc::ServerUnaryReactor* GetMetrics(grpc::CallbackServerContext* call,
                                       const v1::GetMetricsRequest* request,
                                       v1::GetMetricsResponse* response) override;
  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext* call,
                                  const v1::DrainRequest* request,
                                  v1::DrainResponse* response) override;
  grpc::ServerWriteReactor<v1::AuditResponse>* Audit(grpc::CallbackServerContext* call,
                                                     const v1::AuditRequest* request) override;

 private:
  absl::Status SetAdmission(const v1::DrainRequest& request, v1::DrainResponse* response);

  Context* const context_;
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_HOST_SERVICE_H_
