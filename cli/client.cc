#include "cli/client.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cli/suggestion.h"

namespace twinroot::cli {
namespace {

constexpr std::chrono::seconds kCallDeadline{120};

std::shared_ptr<grpc::Channel> Connect(const Endpoint& endpoint) {
  grpc::ChannelArguments arguments;
  // The answers are hvd's own; a large one is not an attack.
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  if (endpoint.address.empty()) {
    return grpc::CreateCustomChannel("unix:" + endpoint.socket, grpc::InsecureChannelCredentials(),
                                     arguments);
  }
  return grpc::CreateCustomChannel(endpoint.address,
                                   grpc::SslCredentials({endpoint.ca, endpoint.key, endpoint.cert}),
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
              "run hvctl as root, as the user that runs hvd, or as a member of its group"};
    default:
      return {};
  }
}

}  // namespace

// Lists show names with it, so it is taken too.
constexpr char kVmPrefix[] = "vms/";

std::string VmResource(const std::string& vm) {
  return vm.rfind(kVmPrefix, 0) == 0 ? vm : kVmPrefix + vm;
}

Client::Client(Endpoint endpoint)
    : endpoint_(std::move(endpoint)),
      channel_(Connect(endpoint_)),
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
  // hvd itself has answered.
  if (!status.error_details().empty()) {
    Failure failure = RpcFailure(what, status);
    if (ReasonOf(status) == "NO_SUCH_VM") SuggestVm(MetadataOf(status, "vm"), &failure);
    throw failure;
  }
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE && !endpoint_.address.empty()) {
    throw Failure{
        kUnavailable,
        absl::StrCat(what, ": no connection to ", endpoint_.address, ": ", status.error_message()),
        "check tcp.address of hvd.yaml, and that --ca, --cert and client_ca fit"};
  }
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
    Failure failure = DiagnoseSocket(endpoint_.socket);
    if (!failure.message.empty()) {
      failure.message = absl::StrCat(what, ": ", failure.message);
      throw failure;
    }
  }
  throw RpcFailure(what, status);
}

void Client::SuggestVm(const std::string& typed, Failure* failure) const {
  constexpr std::chrono::seconds kPatience{2};
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  v1::ListVmsRequest request;
  request.set_page_size(1000);
  v1::ListVmsResponse response;
  // Without an answer the hint stays as it is.
  (void)vm_->ListVms(&context, request, &response);
  std::vector<std::string> names;
  for (const v1::Vm& vm : response.vms()) {
    names.push_back(vm.name().substr(vm.name().rfind('/') + 1));
  }
  const std::string nearest = NearestTo(typed, names);
  if (nearest.empty()) return;
  const std::string hint = absl::StrCat("did you mean ", nearest, "?");
  failure->hint = failure->hint.empty() ? hint : absl::StrCat(hint, " ", failure->hint);
}

}  // namespace twinroot::cli
