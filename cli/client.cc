#include "cli/client.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace twinroot::cli {
namespace {

constexpr std::chrono::seconds kCallDeadline{120};

std::string DefaultSocketPath() {
  if (geteuid() == 0) return "/run/twinroot/hvd.sock";
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  if (runtime == nullptr || *runtime == '\0') {
    throw Failure{kUsage, "XDG_RUNTIME_DIR is not set, so there is no default socket",
                  "name hvd's socket with --endpoint PATH or HVCTL_ENDPOINT"};
  }
  return std::string(runtime) + "/twinroot/hvd.sock";
}

std::shared_ptr<grpc::Channel> Connect(const std::string& socket_path) {
  grpc::ChannelArguments arguments;
  // The answers are hvd's own; a large one is not an attack.
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel("unix:" + socket_path, grpc::InsecureChannelCredentials(),
                                   arguments);
}

// Why nobody answers at `path`, in words; empty if somebody does. gRPC's own sentence lists
// addresses and errno values, which says less.
Failure DiagnoseSocket(const std::string& path) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return {};
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int error =
      connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ? 0 : errno;
  close(fd);
  const std::string start =
      "is hvd running? name its socket with --endpoint PATH or "
      "HVCTL_ENDPOINT";
  struct stat facts {};
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return {kUnavailable, absl::StrCat("there is no socket ", path), start};
    case ECONNREFUSED:
      if (stat(path.c_str(), &facts) == 0 && !S_ISSOCK(facts.st_mode)) {
        return {kUnavailable, absl::StrCat(path, " is not a socket"), start};
      }
      return {kUnavailable, absl::StrCat("nobody listens on ", path), start};
    case EACCES:
    case EPERM:
      return {kDenied, absl::StrCat("no permission for the socket ", path),
              "run hvctl as root or as the user that runs hvd"};
    default:
      return {};
  }
}

}  // namespace

std::string SocketPath(const std::string& endpoint) {
  std::string path = endpoint;
  if (path.empty()) {
    const char* environment = std::getenv("HVCTL_ENDPOINT");
    path = environment != nullptr ? environment : "";
  }
  if (path.empty()) path = DefaultSocketPath();
  const std::string given = path;
  if (path.rfind("unix:", 0) == 0) {
    path.erase(0, std::strlen("unix:"));
    if (path.rfind("///", 0) == 0) path.erase(0, 2);
  } else if (path.find('/') == std::string::npos && path.find(':') != std::string::npos) {
    throw Failure{kUsage, absl::StrCat("endpoint '", given, "' is not a unix socket"),
                  "write --endpoint unix:/run/twinroot/hvd.sock"};
  }
  if (path.empty()) {
    throw Failure{kUsage, absl::StrCat("endpoint '", given, "' names no socket"),
                  "write --endpoint unix:/run/twinroot/hvd.sock"};
  }
  if (path.size() >= sizeof(sockaddr_un::sun_path)) {
    throw Failure{kUsage,
                  absl::StrCat("endpoint '", given, "' is longer than a socket path can be (",
                               sizeof(sockaddr_un::sun_path) - 1, " bytes)"),
                  "use a shorter path, or one relative to the current folder"};
  }
  return path;
}

// Lists show names with it, so it is taken too.
constexpr char kVmPrefix[] = "vms/";

std::string VmResource(const std::string& vm) {
  return vm.rfind(kVmPrefix, 0) == 0 ? vm : kVmPrefix + vm;
}

Client::Client(std::string socket_path)
    : socket_path_(std::move(socket_path)),
      channel_(Connect(socket_path_)),
      vm_(v1::VmService::NewStub(channel_)),
      memory_(v1::MemoryService::NewStub(channel_)),
      dirty_log_(v1::DirtyLogService::NewStub(channel_)),
      event_(v1::EventService::NewStub(channel_)),
      host_(v1::HostService::NewStub(channel_)) {}

void Client::SetDeadline(grpc::ClientContext* context) {
  context->set_deadline(std::chrono::system_clock::now() + kCallDeadline);
}

void Client::Check(const std::string& what, const grpc::Status& status) const {
  if (status.ok()) return;
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
    Failure failure = DiagnoseSocket(socket_path_);
    if (!failure.message.empty()) {
      failure.message = absl::StrCat(what, ": ", failure.message);
      throw failure;
    }
  }
  throw RpcFailure(what, status);
}

}  // namespace twinroot::cli
