// Where hvd answers, and how hvctl shows who it is: a unix socket, where the host knows, or TCP,
// where a client certificate says it.
#ifndef TWINROOT_CLI_ENDPOINT_H_
#define TWINROOT_CLI_ENDPOINT_H_

#include <string>
#include <vector>

namespace twinroot::cli {

// What the command line says; each may be empty. What counts, in this order: --endpoint, --context,
// HVCTL_ENDPOINT, HVCTL_CONTEXT, the context in use (cli/contexts.h), this user's default socket:
// of root /run/twinroot/hvd.sock; of others that of their session, or the first of the host's that
// they may open. PEM files that neither the command line nor the context names: HVCTL_CA,
// HVCTL_CERT, HVCTL_KEY.
struct EndpointOptions {
  std::string context;
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

// Throws Failure{kUsage} for what is neither a usable socket path nor HOST:PORT with all three
// files, and for a context that is not there.
Endpoint FindEndpoint(const EndpointOptions& options);

// Whether it is HOST:PORT rather than a path.
bool IsTcp(const std::string& endpoint);

// The first of these paths that this user may connect to; else the first that is there, so that an
// error names it; else "".
std::string FirstSocketFor(const std::vector<std::string>& sockets);

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_ENDPOINT_H_
