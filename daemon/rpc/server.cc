#include "daemon/rpc/server.h"

#include <sys/stat.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/rpc/context.h"
#include "daemon/rpc/dirty_log_service.h"
#include "daemon/rpc/event_service.h"
#include "daemon/rpc/host_service.h"
#include "daemon/rpc/memory_service.h"
#include "daemon/rpc/vm_service.h"
#include "grpc/grpc.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"

namespace twinroot::rpc {
namespace {

constexpr const char* kServices[] = {"twinroot.v1.VmService", "twinroot.v1.MemoryService",
                                     "twinroot.v1.DirtyLogService", "twinroot.v1.EventService",
                                     "twinroot.v1.HostService"};
// Only the daemon's own user may connect. The mask is the process's, so it is set while the daemon
// still starts and nothing else makes files.
constexpr mode_t kSocketMask = 0177;

// Wakes a list every `interval`, in a thread of its own, until destroyed.
class Ticker {
 public:
  Ticker(absl::Duration interval, const Callbacks<>* list)
      : thread_([this, interval = absl::ToChronoNanoseconds(interval), list] {
          std::unique_lock lock(mutex_);
          while (!wake_.wait_for(lock, interval, [this] { return stopping_; })) {
            lock.unlock();
            list->Call();
            lock.lock();
          }
        }) {}
  ~Ticker() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace

class Server::Impl {
 public:
  Impl(const ServerOptions& options, host::VmRegistry* registry, events::Journal* journal)
      : vms_(&context_),
        memory_(&context_),
        dirty_log_(&context_),
        events_(&context_),
        host_(&context_) {
    context_.registry = registry;
    context_.journal = journal;
    context_.version = options.version;
    context_.metrics_address = options.metrics_address;
    context_.max_vms = options.max_vms;
  }

  ~Impl() {
    EndStreams();
    Shutdown(absl::Seconds(1));
  }

  absl::Status Start(ServerOptions options) {
    static const bool library = [] {
      // Held to the process's end: when its last user goes, gRPC cleans up, and now and then that
      // waits ten seconds for objects of its own.
      grpc_init();
      grpc::EnableDefaultHealthCheckService(true);
      grpc::reflection::InitProtoReflectionServerBuilderPlugin();
      return true;
    }();
    (void)library;
    grpc::ServerBuilder builder;
    builder.AddListeningPort(absl::StrCat("unix:", options.socket),
                             grpc::InsecureServerCredentials());
    builder.RegisterService(&vms_);
    builder.RegisterService(&memory_);
    builder.RegisterService(&dirty_log_);
    builder.RegisterService(&events_);
    builder.RegisterService(&host_);
    if (options.interceptor) {
      std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> creators;
      creators.push_back(std::move(options.interceptor));
      builder.experimental().SetInterceptorCreators(std::move(creators));
    }
    const mode_t mask = umask(kSocketMask);
    server_ = builder.BuildAndStart();
    umask(mask);
    if (!server_) {
      return absl::UnavailableError(absl::StrCat("cannot listen on ", options.socket,
                                                 ": choose another place with --socket"));
    }
    for (const char* service : kServices) {
      server_->GetHealthCheckService()->SetServingStatus(service, true);
    }
    ticker_ = std::make_unique<Ticker>(options.bookmark_interval, &context_.on_tick);
    return absl::OkStatus();
  }

  void SetNotServing() { server_->GetHealthCheckService()->Shutdown(); }

  void EndStreams() {
    context_.draining = true;
    context_.on_drain.Call();
  }

  void Shutdown(absl::Duration grace) {
    ticker_.reset();
    if (!server_) return;
    server_->Shutdown(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(grace));
    server_->Wait();
    server_.reset();
  }

 private:
  // The order matters: the server's calls use the services, which use the context.
  Context context_;
  VmService vms_;
  MemoryService memory_;
  DirtyLogService dirty_log_;
  EventService events_;
  HostService host_;
  std::unique_ptr<Ticker> ticker_;
  std::unique_ptr<grpc::Server> server_;
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;

absl::StatusOr<std::unique_ptr<Server>> Server::Start(ServerOptions options,
                                                      host::VmRegistry* registry,
                                                      events::Journal* journal) {
  auto impl = std::make_unique<Impl>(options, registry, journal);
  if (absl::Status status = impl->Start(std::move(options)); !status.ok()) return status;
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

void Server::SetNotServing() { impl_->SetNotServing(); }
void Server::EndStreams() { impl_->EndStreams(); }
void Server::Shutdown(absl::Duration grace) { impl_->Shutdown(grace); }

}  // namespace twinroot::rpc
