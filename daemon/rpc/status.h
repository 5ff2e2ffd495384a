// Errors on their way out: an absl::Status becomes a grpc::Status whose details carry a
// google.rpc.ErrorInfo (always), and BadRequest (a field is at fault), PreconditionFailure (the
// state does not allow it), QuotaFailure (a limit is reached) or RetryInfo (time may heal it).
// Pure functions; thread-safe.
#ifndef TWINROOT_DAEMON_RPC_STATUS_H_
#define TWINROOT_DAEMON_RPC_STATUS_H_

#include <string>

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace twinroot::rpc {

grpc::Status ToGrpc(const absl::Status& status);

// kInvalidArgument about one field ("vm.memory_bytes", "ranges[3].size"): `what` says the rule and
// so what to do; the message is "field: what".
absl::Status FieldError(const std::string& field, const std::string& what,
                        const std::string& reason);

// kResourceExhausted: `subject` ("uid:1000") has reached a limit; `what` says which, and what to
// do.
absl::Status QuotaError(const std::string& subject, const std::string& what,
                        const std::string& reason);

// `status` with `reason` if nobody below gave it one and its code is `code`. `key`/`value`: one
// fact for the metadata.
absl::Status DefaultReason(absl::Status status, absl::StatusCode code, const std::string& reason,
                           const std::string& key = "", const std::string& value = "");

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_STATUS_H_
