// VmService: images, the life of VMs, waiting, consoles. Converts, checks, calls, answers.
// Thread-safe.
#ifndef TWINROOT_DAEMON_RPC_VM_SERVICE_H_
#define TWINROOT_DAEMON_RPC_VM_SERVICE_H_

#include "absl/status/status.h"
#include "daemon/rpc/context.h"
#include "grpcpp/grpcpp.h"
#include "twinroot/v1/vm.grpc.pb.h"

namespace twinroot::rpc {

class VmService : public v1::VmService::CallbackService {
 public:
  // `context` outlives the service.
  explicit VmService(Context* context) : context_(context) {}

  grpc::ServerReadReactor<v1::UploadImageRequest>* UploadImage(
      grpc::CallbackServerContext* call, v1::UploadImageResponse* response) override;
  grpc::ServerUnaryReactor* CreateVm(grpc::CallbackServerContext* call,
                                     const v1::CreateVmRequest* request,
                                     v1::CreateVmResponse* response) override;
  grpc::ServerUnaryReactor* GetVm(grpc::CallbackServerContext* call,
                                  const v1::GetVmRequest* request,
                                  v1::GetVmResponse* response) override;
  grpc::ServerUnaryReactor* ListVms(grpc::CallbackServerContext* call,
                                    const v1::ListVmsRequest* request,
                                    v1::ListVmsResponse* response) override;
  grpc::ServerUnaryReactor* UpdateVm(grpc::CallbackServerContext* call,
                                     const v1::UpdateVmRequest* request,
                                     v1::UpdateVmResponse* response) override;
  grpc::ServerUnaryReactor* StartVm(grpc::CallbackServerContext* call,
                                    const v1::StartVmRequest* request,
                                    v1::StartVmResponse* response) override;
  grpc::ServerUnaryReactor* PauseVm(grpc::CallbackServerContext* call,
                                    const v1::PauseVmRequest* request,
                                    v1::PauseVmResponse* response) override;
  grpc::ServerUnaryReactor* ResumeVm(grpc::CallbackServerContext* call,
                                     const v1::ResumeVmRequest* request,
                                     v1::ResumeVmResponse* response) override;
  grpc::ServerUnaryReactor* StopVm(grpc::CallbackServerContext* call,
                                   const v1::StopVmRequest* request,
                                   v1::StopVmResponse* response) override;
  grpc::ServerUnaryReactor* DeleteVm(grpc::CallbackServerContext* call,
                                     const v1::DeleteVmRequest* request,
                                     v1::DeleteVmResponse* response) override;
  grpc::ServerUnaryReactor* WaitVm(grpc::CallbackServerContext* call,
                                   const v1::WaitVmRequest* request,
                                   v1::WaitVmResponse* response) override;
  grpc::ServerWriteReactor<v1::StreamConsoleResponse>* StreamConsole(
      grpc::CallbackServerContext* call, const v1::StreamConsoleRequest* request) override;
  grpc::ServerUnaryReactor* WriteConsole(grpc::CallbackServerContext* call,
                                         const v1::WriteConsoleRequest* request,
                                         v1::WriteConsoleResponse* response) override;

 private:
  absl::Status Create(const v1::CreateVmRequest& request, v1::CreateVmResponse* response);
  absl::Status List(const v1::ListVmsRequest& request, v1::ListVmsResponse* response);
  absl::Status Update(const v1::UpdateVmRequest& request, v1::UpdateVmResponse* response);
  // A call that takes a VM from one state to another: `change(vm, if_version)`.
  template <typename Request, typename Response, typename Change>
  absl::Status ChangeState(const Request& request, Response* response, const char* what,
                           const Change& change);
  absl::Status Start(const v1::StartVmRequest& request, v1::StartVmResponse* response);
  absl::Status Delete(const v1::DeleteVmRequest& request);

  Context* const context_;
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_VM_SERVICE_H_
