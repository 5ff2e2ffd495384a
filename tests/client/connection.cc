#include "tests/client/connection.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/channel_arguments.h"

namespace twinroot::client {

std::shared_ptr<grpc::Channel> Connect(const std::string& endpoint) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(endpoint, grpc::InsecureChannelCredentials(), arguments);
}

std::string NameOf(const grpc::Status& status) {
  if (status.ok()) return "OK";
  google::rpc::Status details;
  details.ParseFromString(status.error_details());
  google::rpc::ErrorInfo info;
  for (const auto& any : details.details()) {
    if (any.Is<google::rpc::ErrorInfo>()) any.UnpackTo(&info);
  }
  return info.reason().empty() ? absl::StrCat("gRPC code ", status.error_code()) : info.reason();
}

void Must(bool holds, const std::string& what) {
  if (holds) return;
  std::fflush(stdout);
  std::fprintf(stderr, "%s: %s\n", program_invocation_short_name, what.c_str());
  std::_Exit(1);  // other threads still use what a clean end would destroy
}

void Must(const grpc::Status& status, const std::string& what) {
  Must(status.ok(), what + ": " + NameOf(status) + ": " + status.error_message());
}

}  // namespace twinroot::client
