#include "daemon/rpc/server.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/rpc/context.h"
#include "daemon/rpc/dirty_log_service.h"
#include "daemon/rpc/event_service.h"
#include "daemon/rpc/guarded.h"
#include "daemon/rpc/host_service.h"
#include "daemon/rpc/memory_service.h"
#include "daemon/rpc/vm_service.h"
#include "grpc/grpc.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/server_posix.h"

namespace twinroot::rpc {
namespace {

constexpr const char* kServices[] = {"twinroot.v1.VmService", "twinroot.v1.MemoryService",
                                     "twinroot.v1.DirtyLogService", "twinroot.v1.EventService",
                                     "twinroot.v1.HostService"};
// How often a client may ask whether we are still here. gRPC's own five minutes end the calls of
// every client that wants to know it sooner while a wait or a watch is quiet.
constexpr int kPingMilliseconds = 1000;

using GuardedVms =
    Guarded<v1::VmService, VmService, &VmService::UploadImage, &VmService::CreateVm,
            &VmService::GetVm, &VmService::ListVms, &VmService::UpdateVm, &VmService::StartVm,
            &VmService::PauseVm, &VmService::ResumeVm, &VmService::StopVm, &VmService::DeleteVm,
            &VmService::WaitVm, &VmService::StreamConsole, &VmService::WriteConsole>;
using GuardedMemory =
    Guarded<v1::MemoryService, MemoryService, &MemoryService::SetMemoryAttributes,
            &MemoryService::GetMemoryAttributes, &MemoryService::Translate,
            &MemoryService::ReadGuestMemory, &MemoryService::WriteGuestMemory,
            &MemoryService::RecoverPages, &MemoryService::Prefault, &MemoryService::AddMemslot,
            &MemoryService::RemoveMemslot, &MemoryService::MoveMemslot, &MemoryService::DumpTables,
            &MemoryService::AgePages, &MemoryService::RecoverNxPages,
            &MemoryService::GetMemoryStats>;
using GuardedDirtyLog =
    Guarded<v1::DirtyLogService, DirtyLogService, &DirtyLogService::EnableDirtyLog,
            &DirtyLogService::DisableDirtyLog, &DirtyLogService::HarvestDirtyLog,
            &DirtyLogService::ClearDirtyLog, &DirtyLogService::SplitPages>;
using GuardedEvents =
    Guarded<v1::EventService, EventService, &EventService::WatchEvents, &EventService::ListEvents,
            &EventService::ListConversions, &EventService::ResolveConversion>;
using GuardedHost = Guarded<v1::HostService, HostService, &HostService::GetHost,
                            &HostService::Audit, &HostService::GetMetrics, &HostService::Drain>;

constexpr char kHealthCheck[] = "/grpc.health.v1.Health/Check";

// One call of gRPC's own health service, over a channel in this process.
struct HealthCall {
  explicit HealthCall(const std::shared_ptr<grpc::Channel>& channel) : stub(channel) {}
  grpc::GenericStub stub;
  grpc::ClientContext context;
  grpc::Slice everything;  // an empty message asks for the server as a whole
  grpc::ByteBuffer request{&everything, 1};
  grpc::ByteBuffer response;
};

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
    context_.metrics_text = options.metrics_text;
    context_.on_gap = options.on_gap;
    context_.on_admission = options.on_admission;
    context_.set_serving = [this](bool serving) { SetServing(serving); };
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
    // Up to twice the limit, calls are refused with a reason; beyond, connections are closed.
    options.door.most_of_user = 2 * options.limits.connections_per_principal;
    auto door = access::UnixDoor::Make(options.door);
    if (!door.ok()) return door.status();
    door_ = *std::move(door);
    grpc::ServerBuilder builder;
    int port = 0;
    if (options.tcp.has_value()) {
      builder.AddListeningPort(options.tcp->address, access::MakeTlsCredentials(options.tcp->files),
                               &port);
    }
    // Another daemon on the same port would get half of the connections.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                               static_cast<int>(options.limits.streams_per_connection));
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                               kPingMilliseconds);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    builder.SetMaxReceiveMessageSize(static_cast<int>(options.limits.message_bytes));
    builder.RegisterService(&vms_);
    builder.RegisterService(&memory_);
    builder.RegisterService(&dirty_log_);
    builder.RegisterService(&events_);
    builder.RegisterService(&host_);
    std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> creators;
    creators.push_back(options.gatekeeper->MakeInterceptorFactory(door_.get()));
    if (options.interceptor) creators.push_back(std::move(options.interceptor));
    builder.experimental().SetInterceptorCreators(std::move(creators));
    server_ = builder.BuildAndStart();
    if (!server_) {
      return absl::UnavailableError(absl::StrCat(
          "cannot listen on ", options.tcp.has_value() ? options.tcp->address : "no address",
          ": the port is taken, or the address is not this host's; choose another with "
          "tcp.address"));
    }
    if (options.tcp.has_value()) {
      const std::string& address = options.tcp->address;
      tcp_address_ = absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
    }
    channel_ = server_->InProcessChannel(grpc::ChannelArguments());
    SetServing(true);
    ticker_ = std::make_unique<Ticker>(options.bookmark_interval, &context_.on_tick);
    door_->Serve([this](int fd) { grpc::AddInsecureChannelFromFd(server_.get(), fd); });
    return absl::OkStatus();
  }

  const std::string& tcp_address() const { return tcp_address_; }

  void AskProgress(std::function<void()> done) {
    door_->AskProgress([this, done = std::move(done)] {
      auto call = std::make_shared<HealthCall>(channel_);
      // Any answer is one.
      call->stub.UnaryCall(&call->context, kHealthCheck, grpc::StubOptions(), &call->request,
                           &call->response, [call, done](const grpc::Status&) { done(); });
    });
  }

  // Of the whole and of each service; after SetNotServing it changes nothing.
  void SetServing(bool serving) {
    server_->GetHealthCheckService()->SetServingStatus(serving);
    for (const char* service : kServices) {
      server_->GetHealthCheckService()->SetServingStatus(service, serving);
    }
  }
  void SetNotServing() { server_->GetHealthCheckService()->Shutdown(); }

  void EndStreams() {
    context_.draining = true;
    context_.on_drain.Call();
  }

  void Shutdown(absl::Duration grace) {
    ticker_.reset();
    if (door_) door_->Close();
    if (!server_) return;
    channel_.reset();
    server_->Shutdown(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(grace));
    server_->Wait();
    server_.reset();
  }

 private:
  // The order matters: the server's calls use the services, which use the context.
  Context context_;
  GuardedVms vms_;
  GuardedMemory memory_;
  GuardedDirtyLog dirty_log_;
  GuardedEvents events_;
  GuardedHost host_;
  std::string tcp_address_;
  std::unique_ptr<Ticker> ticker_;
  std::unique_ptr<access::UnixDoor> door_;  // calls ask it who they are
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;  // to the server, from here
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

std::string Server::tcp_address() const { return impl_->tcp_address(); }
void Server::AskProgress(std::function<void()> done) { impl_->AskProgress(std::move(done)); }
void Server::SetNotServing() { impl_->SetNotServing(); }
void Server::EndStreams() { impl_->EndStreams(); }
void Server::Shutdown(absl::Duration grace) { impl_->Shutdown(grace); }

}  // namespace twinroot::rpc
