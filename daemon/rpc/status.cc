#include "daemon/rpc/status.h"

#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "daemon/reasons.h"
#include "daemon/status_reason.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace twinroot::rpc {
namespace {

// Payloads that are details already are named by their type, as in an Any.
constexpr char kTypes[] = "type.googleapis.com/";
constexpr char kBadRequest[] = "type.googleapis.com/google.rpc.BadRequest";
constexpr char kQuotaFailure[] = "type.googleapis.com/google.rpc.QuotaFailure";

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

  status.ForEachPayload([&](absl::string_view type, const absl::Cord& payload) {
    if (!absl::StartsWith(type, kTypes)) return;
    google::protobuf::Any* detail = details.add_details();
    detail->set_type_url(std::string(type));
    detail->set_value(std::string(payload));
  });
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

absl::Status QuotaError(const std::string& subject, const std::string& what,
                        const std::string& reason) {
  google::rpc::QuotaFailure failure;
  google::rpc::QuotaFailure::Violation* violation = failure.add_violations();
  violation->set_subject(subject);
  violation->set_description(what);
  absl::Status status = absl::ResourceExhaustedError(absl::StrCat(subject, ": ", what));
  status.SetPayload(kQuotaFailure, absl::Cord(failure.SerializeAsString()));
  return WithReason(std::move(status), reason);
}

absl::Status DefaultReason(absl::Status status, absl::StatusCode code, const std::string& reason,
                           const std::string& key, const std::string& value) {
  if (status.code() != code || !ReasonOf(status).empty()) return status;
  if (key.empty()) return WithReason(std::move(status), reason);
  return WithReason(std::move(status), reason, {{key, value}});
}

}  // namespace twinroot::rpc
