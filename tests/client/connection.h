// What programs that drive a daemon over gRPC have in common: a connection, and an end when
// something does not hold. Thread-safe.
#ifndef TWINROOT_TESTS_CLIENT_CONNECTION_H_
#define TWINROOT_TESTS_CLIENT_CONNECTION_H_

#include <memory>
#include <string>

#include "grpcpp/channel.h"
#include "grpcpp/support/status.h"

namespace twinroot::client {

// A connection of its own, even beside others of this process to the same endpoint.
std::shared_ptr<grpc::Channel> Connect(const std::string& endpoint);

// "WRONG_STATE": its reason; or its code, if it has none.
std::string NameOf(const grpc::Status& status);

// Ends the program with exit code 1 and this sentence, unless it holds.
void Must(bool holds, const std::string& what);
void Must(const grpc::Status& status, const std::string& what);

}  // namespace twinroot::client

#endif  // TWINROOT_TESTS_CLIENT_CONNECTION_H_
