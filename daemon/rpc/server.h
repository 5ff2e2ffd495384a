// The gRPC server on its unix socket: the services of twinroot.v1, health and reflection.
//
// Thread-safe. Order of life: Start, (SetNotServing, EndStreams), Shutdown or the destructor. The
// registry and the journal outlive it.
#ifndef TWINROOT_DAEMON_RPC_SERVER_H_
#define TWINROOT_DAEMON_RPC_SERVER_H_

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "daemon/events/journal.h"
#include "daemon/host/vm_registry.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/support/server_interceptor.h"

namespace twinroot::rpc {

struct ServerOptions {
  std::string socket;  // path; the caller has made sure that nobody else uses it
  std::string version;
  std::string metrics_address;  // shown by GetHost
  uint32_t max_vms = 0;         // shown by GetHost
  absl::Duration bookmark_interval = absl::Seconds(5);
  // Sees every call (metrics); may be null.
  std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> interceptor;
};

class Server {
 public:
  // kUnavailable: the socket cannot be bound.
  static absl::StatusOr<std::unique_ptr<Server>> Start(ServerOptions options,
                                                       host::VmRegistry* registry,
                                                       events::Journal* journal);
  ~Server();

  // Health says NOT_SERVING from now on; calls are served still.
  void SetNotServing();
  // Event and console streams send what is left (event streams a bookmark last) and end; waiting
  // calls are answered.
  void EndStreams();
  // Takes no more calls, waits for those under way and cancels them when `grace` is over.
  void Shutdown(absl::Duration grace);

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_SERVER_H_
