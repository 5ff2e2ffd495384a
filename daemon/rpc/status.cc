#include "daemon/rpc/status.h"

#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "daemon/reasons.h"
#include "daemon/status_reason.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace twinroot::rpc {
namespace {

// Payload of FieldError: a serialized google.rpc.BadRequest.
constexpr char kBadRequest[] = "type.googleapis.com/google.rpc.BadRequest";

}  // namespace

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const std::string message(status.message());

  google::rpc::Status details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(message);

  google::rpc::ErrorInfo info;
  info.set_domain(reason::kDomain);
  info.set_reason(ReasonOf(status));
  if (info.reason().empty()) info.set_reason(absl::StatusCodeToString(status.code()));
  for (auto& [key, value] : MetadataOf(status)) (*info.mutable_metadata())[key] = value;
  details.add_details()->PackFrom(info);

  if (const auto payload = status.GetPayload(kBadRequest); payload.has_value()) {
    google::rpc::BadRequest bad_request;
    if (bad_request.ParseFromString(std::string(*payload))) {
      details.add_details()->PackFrom(bad_request);
    }
  }
  // The codes of absl and gRPC are the same numbers by definition.
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message,
                      details.SerializeAsString());
}

absl::Status FieldError(const std::string& field, const std::string& what,
                        const std::string& reason) {
  google::rpc::BadRequest bad_request;
  google::rpc::BadRequest::FieldViolation* violation = bad_request.add_field_violations();
  violation->set_field(field);
  violation->set_description(what);
  absl::Status status = absl::InvalidArgumentError(absl::StrCat(field, ": ", what));
  status.SetPayload(kBadRequest, absl::Cord(bad_request.SerializeAsString()));
  return WithReason(std::move(status), reason);
}

absl::Status DefaultReason(absl::Status status, absl::StatusCode code, const std::string& reason,
                           const std::string& key, const std::string& value) {
  if (status.code() != code || !ReasonOf(status).empty()) return status;
  if (key.empty()) return WithReason(std::move(status), reason);
  return WithReason(std::move(status), reason, {{key, value}});
}

}  // namespace twinroot::rpc
