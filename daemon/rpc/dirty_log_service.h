// DirtyLogService: which pages were written. Converts, checks, calls, answers. Thread-safe.
#ifndef TWINROOT_DAEMON_RPC_DIRTY_LOG_SERVICE_H_
#define TWINROOT_DAEMON_RPC_DIRTY_LOG_SERVICE_H_

#include "absl/status/status.h"
#include "daemon/rpc/context.h"
#include "grpcpp/grpcpp.h"
#include "twinroot/v1/dirty_log.grpc.pb.h"

namespace twinroot::rpc {

class DirtyLogService : public v1::DirtyLogService::CallbackService {
 public:
  // `context` outlives the service.
  explicit DirtyLogService(Context* context) : context_(context) {}

  grpc::ServerUnaryReactor* EnableDirtyLog(grpc::CallbackServerContext* call,
                                           const v1::EnableDirtyLogRequest* request,
                                           v1::EnableDirtyLogResponse* response) override;
  grpc::ServerUnaryReactor* DisableDirtyLog(grpc::CallbackServerContext* call,
                                            const v1::DisableDirtyLogRequest* request,
                                            v1::DisableDirtyLogResponse* response) override;
  grpc::ServerWriteReactor<v1::HarvestDirtyLogResponse>* HarvestDirtyLog(
      grpc::CallbackServerContext* call, const v1::HarvestDirtyLogRequest* request) override;
  grpc::ServerUnaryReactor* ClearDirtyLog(grpc::CallbackServerContext* call,
                                          const v1::ClearDirtyLogRequest* request,
                                          v1::ClearDirtyLogResponse* response) override;
  grpc::ServerUnaryReactor* SplitPages(grpc::CallbackServerContext* call,
                                       const v1::SplitPagesRequest* request,
                                       v1::SplitPagesResponse* response) override;

 private:
  absl::Status Enable(const v1::EnableDirtyLogRequest& request,
                      v1::EnableDirtyLogResponse* response);
  absl::Status Disable(const v1::DisableDirtyLogRequest& request,
                       v1::DisableDirtyLogResponse* response);
  absl::Status Clear(const v1::ClearDirtyLogRequest& request);
  absl::Status Split(const v1::SplitPagesRequest& request, v1::SplitPagesResponse* response);

  Context* const context_;
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_DIRTY_LOG_SERVICE_H_
