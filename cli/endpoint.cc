#include "cli/endpoint.h"

#include <fcntl.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "cli/contexts.h"
#include "cli/failure.h"
#include "cli/input_file.h"

namespace twinroot::cli {
namespace {

constexpr size_t kMaxPem = size_t{1} << 20;

std::string OrVariable(const std::string& option, const char* variable) {
  if (!option.empty()) return option;
  const char* value = std::getenv(variable);
  return value == nullptr ? "" : value;
}

// Those that systemd makes (deploy/systemd), the one that grants most first.
constexpr const char* kHostSockets[] = {"/run/twinroot/hvd.sock", "/run/twinroot/operator.sock",
                                        "/run/twinroot/viewer.sock"};

std::string DefaultSocketPath() {
  if (geteuid() == 0) return kHostSockets[0];
  std::vector<std::string> sockets(std::begin(kHostSockets), std::end(kHostSockets));
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  const bool session = runtime != nullptr && *runtime != '\0';
  if (session) sockets.insert(sockets.begin(), std::string(runtime) + "/twinroot/hvd.sock");
  if (const std::string socket = FirstSocketFor(sockets); !socket.empty()) return socket;
  if (session) return sockets.front();
  throw Failure{kUsage, "this user has no default socket, and no hvd has made one on this host",
                "start hvd, or name its socket with --endpoint PATH or HVCTL_ENDPOINT"};
}

std::string SocketPath(const std::string& given) {
  std::string path = given;
  if (path.rfind("unix:", 0) == 0) {
    path.erase(0, std::strlen("unix:"));
    if (path.rfind("///", 0) == 0) path.erase(0, 2);
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

std::string ReadPem(const EndpointOptions& options, const std::string& path, const char* option,
                    const char* variable) {
  const std::string name = OrVariable(path, variable);
  if (name.empty()) {
    throw Failure{kUsage,
                  absl::StrCat("endpoint '", options.endpoint,
                               "' is not a unix socket, so it needs ", option, " FILE"),
                  "TCP takes --ca, --cert and --key; a socket is written unix:PATH"};
  }
  return InputFile(option, name).Read(kMaxPem);
}

// The options with what the environment and the contexts add to them.
EndpointOptions Resolve(EndpointOptions options) {
  if (options.endpoint.empty() && options.context.empty()) {
    options.endpoint = OrVariable("", "HVCTL_ENDPOINT");
  }
  if (!options.endpoint.empty()) return options;
  options.context = OrVariable(options.context, "HVCTL_CONTEXT");
  const Contexts contexts = LoadContexts();
  const std::string& name = options.context.empty() ? contexts.current : options.context;
  if (name.empty()) return options;
  const Context& context = contexts.Get(name);
  options.endpoint = context.endpoint;
  if (options.ca.empty()) options.ca = context.ca;
  if (options.cert.empty()) options.cert = context.cert;
  if (options.key.empty()) options.key = context.key;
  return options;
}

}  // namespace

bool IsTcp(const std::string& endpoint) {
  return endpoint.rfind("unix:", 0) != 0 && endpoint.find('/') == std::string::npos &&
         endpoint.find(':') != std::string::npos;
}

std::string FirstSocketFor(const std::vector<std::string>& sockets) {
  for (const int right : {W_OK, F_OK}) {  // to connect is to write
    for (const std::string& socket : sockets) {
      if (faccessat(AT_FDCWD, socket.c_str(), right, AT_EACCESS) == 0) return socket;
    }
  }
  return "";
}

Endpoint FindEndpoint(const EndpointOptions& given) {
  const EndpointOptions options = Resolve(given);
  Endpoint endpoint;
  if (options.endpoint.empty()) {
    endpoint.socket = SocketPath(DefaultSocketPath());
  } else if (IsTcp(options.endpoint)) {
    endpoint.address = options.endpoint;
    endpoint.ca = ReadPem(options, options.ca, "--ca", "HVCTL_CA");
    endpoint.cert = ReadPem(options, options.cert, "--cert", "HVCTL_CERT");
    endpoint.key = ReadPem(options, options.key, "--key", "HVCTL_KEY");
  } else {
    endpoint.socket = SocketPath(options.endpoint);
  }
  return endpoint;
}

}  // namespace twinroot::cli
