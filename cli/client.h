// The connection to hvd: its endpoint, the stubs, and calls that either answer or throw Failure.
// Not thread-safe; nothing is sent before the first call.
#ifndef TWINROOT_CLI_CLIENT_H_
#define TWINROOT_CLI_CLIENT_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <memory>
#include <string>

#include "cli/endpoint.h"
#include "cli/failure.h"
#include "twinroot/v1/dirty_log.grpc.pb.h"
#include "twinroot/v1/event.grpc.pb.h"
#include "twinroot/v1/host.grpc.pb.h"
#include "twinroot/v1/memory.grpc.pb.h"
#include "twinroot/v1/vm.grpc.pb.h"

namespace twinroot::cli {

// A VM's resource name: "vms/demo".
std::string VmResource(const std::string& vm);

class Client {
 public:
  explicit Client(Endpoint endpoint);

  v1::VmService::Stub& vm() { return *vm_; }
  v1::MemoryService::Stub& memory() { return *memory_; }
  v1::DirtyLogService::Stub& dirty_log() { return *dirty_log_; }
  v1::EventService::Stub& event() { return *event_; }
  v1::HostService::Stub& host() { return *host_; }

  // Runs `call(context, response)`, a unary call that a healthy daemon answers soon. `what` begins
  // the sentence of a failure: "cannot start vm demo".
  template <typename Response, typename Function>
  Response Call(const std::string& what, Function call) {
    grpc::ClientContext context;
    SetDeadline(&context);
    Response response;
    Check(what, call(&context, &response));
    return response;
  }

  // The deadline of calls that do not wait for a guest: a daemon this silent is stuck.
  static void SetDeadline(grpc::ClientContext* context);
  // Throws unless `status` is OK.
  void Check(const std::string& what, const grpc::Status& status) const;

 private:
  // Puts the VM that was probably meant before the hint, if there is one.
  void SuggestVm(const std::string& typed, Failure* failure) const;

  const Endpoint endpoint_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::VmService::Stub> vm_;
  const std::unique_ptr<v1::MemoryService::Stub> memory_;
  const std::unique_ptr<v1::DirtyLogService::Stub> dirty_log_;
  const std::unique_ptr<v1::EventService::Stub> event_;
  const std::unique_ptr<v1::HostService::Stub> host_;
};

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_CLIENT_H_
