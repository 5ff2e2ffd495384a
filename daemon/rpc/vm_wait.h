// One WaitVm call: answers when the VM is stopped or deleted, when the caller leaves or its
// deadline passes, or when the daemon drains; whichever is first. Uses no thread meanwhile.
//
// Thread-safe: the events come from any thread.
#ifndef TWINROOT_DAEMON_RPC_VM_WAIT_H_
#define TWINROOT_DAEMON_RPC_VM_WAIT_H_

#include <memory>
#include <mutex>
#include <optional>

#include "absl/status/status.h"
#include "daemon/rpc/context.h"
#include "grpcpp/grpcpp.h"
#include "twinroot/v1/vm.pb.h"

namespace twinroot::rpc {

class VmWait final : public grpc::ServerUnaryReactor {
 public:
  VmWait(Context* context, grpc::CallbackServerContext* call, std::shared_ptr<host::Vm> vm,
         v1::WaitVmResponse* response);
  // Once, before the reactor is given to gRPC.
  void Begin();

 private:
  void Drain();
  // The first one counts.
  void End(absl::Status status);
  void Answer(absl::Status status);
  void OnCancel() override;
  void OnDone() override { delete this; }

  Context* const context_;
  grpc::CallbackServerContext* const call_;
  const std::shared_ptr<host::Vm> vm_;
  v1::WaitVmResponse* const response_;

  std::mutex mutex_;
  // Both below: `mutex_`. Nothing is answered before Begin is through with the members below it.
  bool begun_ = false;
  std::optional<absl::Status> end_;

  std::unique_ptr<host::Vm::Waiter> stopped_;
  std::unique_ptr<CallbackHandle> drain_;
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_VM_WAIT_H_
