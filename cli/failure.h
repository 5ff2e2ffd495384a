// How hvctl ends when something went wrong: an exit code, one sentence, and the next step.
// Thrown by commands, caught once in main(); CLI11 throws as well, so there is one way out.
//
// Exit codes are part of hvctl's contract (see ExitCode); `hvctl --help` prints them.
#ifndef TWINROOT_CLI_FAILURE_H_
#define TWINROOT_CLI_FAILURE_H_

#include <grpcpp/support/status.h>

#include <string>

#include "cli/quantity.h"

namespace twinroot::cli {

enum ExitCode : int {
  kOk = 0,
  kFailure = 1,
  kUsage = 2,        // a flag, value or file that cannot be taken
  kNotFound = 3,     // no such VM or image
  kUnavailable = 4,  // no daemon answers
  kConflict = 5,     // the name is taken, or the VM's state does not allow it
  kDenied = 6,
  kTimeout = 124,      // as timeout(1)
  kVmStopped = 125,    // `vm wait`: the VM stopped for a reason, there is no exit code
  kInterrupted = 130,  // as a shell reports SIGINT
};

struct Failure {
  int exit_code = kFailure;
  std::string message;
  std::string hint;  // the next step; may be empty
};

// The reader of stdout went away: not an error of ours, hvctl just ends.
struct OutputClosed {};

int ExitCodeOf(grpc::StatusCode code);

// The stable reason (daemon/reasons.h), or "" if there is none.
std::string ReasonOf(const grpc::Status& status);
// What the error's metadata says, or "".
std::string MetadataOf(const grpc::Status& status, const std::string& key);

// "what: the server's sentence", with the hint that the error's google.rpc.ErrorInfo or its code
// suggests.
Failure RpcFailure(const std::string& what, const grpc::Status& status);

// The value, or Failure{kUsage}.
template <typename T>
T ValueOrUsage(absl::StatusOr<T> value) {
  if (!value.ok()) throw Failure{kUsage, std::string(value.status().message()), ""};
  return *std::move(value);
}

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_FAILURE_H_
