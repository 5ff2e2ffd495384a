// Where hvd answers, and how hvctl shows who it is: a unix socket, where the host knows, or TCP,
// where a client certificate says it.
#ifndef TWINROOT_CLI_ENDPOINT_H_
#define TWINROOT_CLI_ENDPOINT_H_

#include <string>

namespace twinroot::cli {

// What the command line says; each may be empty, and then a variable of the environment counts:
// HVCTL_ENDPOINT, HVCTL_CA, HVCTL_CERT, HVCTL_KEY.
struct EndpointOptions {
  std::string endpoint;
  std::string ca;
  std::string cert;
  std::string key;
};

struct Endpoint {
  std::string socket;   // a path; or
  std::string address;  // HOST:PORT, with the text of these PEM files
  std::string ca;
  std::string cert;
  std::string key;
};

// If nothing names an endpoint: this user's default socket. Throws Failure{kUsage} for what is
// neither a usable socket path nor HOST:PORT with all three files.
Endpoint FindEndpoint(const EndpointOptions& options);

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_ENDPOINT_H_
