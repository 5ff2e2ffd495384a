// The gRPC server on its unix socket, and on TCP if that is asked for: the services of twinroot.v1,
// each behind the gatekeeper, health and reflection.
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
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "daemon/access/gatekeeper.h"
#include "daemon/access/rules.h"
#include "daemon/access/tls_files.h"
#include "daemon/access/unix_door.h"
#include "daemon/events/journal.h"
#include "daemon/host/vm_registry.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/support/server_interceptor.h"

namespace twinroot::rpc {

struct TcpOptions {
  std::string address;  // host:port; port 0 takes a free one
  access::TlsFiles files;
};

struct ServerOptions {
  access::DoorOptions door;  // the unix socket; the caller has made sure that nobody else uses it
  std::optional<TcpOptions> tcp;
  access::Limits limits;  // of connections and messages
  // Decides about every call. Outlives the server.
  access::Gatekeeper* gatekeeper = nullptr;
  std::string version;
  std::string metrics_address;  // shown by GetHost
  uint32_t max_vms = 0;         // shown by GetHost
  // What GetMetrics answers; it may be called at any time until the server ends.
  std::function<std::string()> metrics_text = [] { return std::string(); };
  // Hear of a gap that a caller was told, for so many events, and of the host that takes no new
  // VMs, or does again. Any thread, until the server ends.
  std::function<void(uint64_t events)> on_gap = [](uint64_t) {};
  std::function<void(bool draining)> on_admission = [](bool) {};
  absl::Duration bookmark_interval = absl::Seconds(5);
  // Sees every call (metrics); may be null.
  std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> interceptor;
};

class Server {
 public:
  // kUnavailable: the socket or the TCP address cannot be bound. kFailedPrecondition: the socket's
  // group or mode cannot be set.
  static absl::StatusOr<std::unique_ptr<Server>> Start(ServerOptions options,
                                                       host::VmRegistry* registry,
                                                       events::Journal* journal);
  ~Server();

  // host:port of TCP that is really served, or "".
  std::string tcp_address() const;

  // Calls `done` when the thread of the unix sockets has come around and gRPC has answered a call;
  // never, if one of them stands still. Not after Shutdown.
  void AskProgress(std::function<void()> done);

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
