#include "cli/endpoint.h"

#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
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

std::string DefaultSocketPath() {
  if (geteuid() == 0) return "/run/twinroot/hvd.sock";
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  if (runtime == nullptr || *runtime == '\0') {
    throw Failure{kUsage, "XDG_RUNTIME_DIR is not set, so there is no default socket",
                  "name hvd's socket with --endpoint PATH or HVCTL_ENDPOINT"};
  }
  return std::string(runtime) + "/twinroot/hvd.sock";
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
                  absl::StrCat("endpoint '", OrVariable(options.endpoint, "HVCTL_ENDPOINT"),
                               "' is not a unix socket, so it needs ", option, " FILE"),
                  "TCP takes --ca, --cert and --key (or HVCTL_CA, HVCTL_CERT, HVCTL_KEY); a socket "
                  "is written unix:/run/twinroot/hvd.sock"};
  }
  return InputFile(option, name).Read(kMaxPem);
}

}  // namespace

Endpoint FindEndpoint(const EndpointOptions& options) {
  const std::string given = OrVariable(options.endpoint, "HVCTL_ENDPOINT");
  Endpoint endpoint;
  if (given.empty()) {
    endpoint.socket = SocketPath(DefaultSocketPath());
  } else if (given.rfind("unix:", 0) != 0 && given.find('/') == std::string::npos &&
             given.find(':') != std::string::npos) {
    endpoint.address = given;
    endpoint.ca = ReadPem(options, options.ca, "--ca", "HVCTL_CA");
    endpoint.cert = ReadPem(options, options.cert, "--cert", "HVCTL_CERT");
    endpoint.key = ReadPem(options, options.key, "--key", "HVCTL_KEY");
  } else {
    endpoint.socket = SocketPath(given);
  }
  return endpoint;
}

}  // namespace twinroot::cli
