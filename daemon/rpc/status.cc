#include "daemon/rpc/status.h"

#include <optional>
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

// When a refusal that time may heal is worth another try.
std::optional<int> SecondsToWait(const std::string& reason) {
  if (reason == reason::kTooManyCalls || reason == reason::kTooManyConnections ||
      reason == reason::kConsoleInputFull || reason == reason::kVcpuWaits) {
    return 1;
  }
  if (reason == reason::kDaemonStopping) return 5;
  if (reason == reason::kDraining) return 30;
  return std::nullopt;
}

// Whom an error is about: "vms/demo", or this host.
std::string SubjectOf(const google::rpc::ErrorInfo& info) {
  const auto vm = info.metadata().find("vm");
  return vm == info.metadata().end() ? "host" : absl::StrCat("vms/", vm->second);
}

// What the code calls for and nobody below has said: made of the reason and its facts, so that
// every error of a kind has it.
template <typename Detail, typename Fill>
void AddUnlessThere(google::rpc::Status& details, const Fill& fill) {
  for (const google::protobuf::Any& detail : details.details()) {
    if (detail.Is<Detail>()) return;
  }
  Detail detail;
  fill(detail);
  details.add_details()->PackFrom(detail);
}

void AddWhatTheCodeCallsFor(const google::rpc::ErrorInfo& info, google::rpc::Status& details) {
  const auto code = static_cast<absl::StatusCode>(details.code());
  const auto field = info.metadata().find("field");
  if (code == absl::StatusCode::kInvalidArgument && field != info.metadata().end()) {
    AddUnlessThere<google::rpc::BadRequest>(details, [&](google::rpc::BadRequest& bad) {
      google::rpc::BadRequest::FieldViolation* violation = bad.add_field_violations();
      violation->set_field(field->second);
      violation->set_description(details.message());
    });
  }
  if (code == absl::StatusCode::kFailedPrecondition || code == absl::StatusCode::kAborted) {
    AddUnlessThere<google::rpc::PreconditionFailure>(
        details, [&](google::rpc::PreconditionFailure& failure) {
          google::rpc::PreconditionFailure::Violation* violation = failure.add_violations();
          violation->set_type(info.reason());
          violation->set_subject(SubjectOf(info));
          violation->set_description(details.message());
        });
  }
  if (code == absl::StatusCode::kResourceExhausted) {
    AddUnlessThere<google::rpc::QuotaFailure>(details, [&](google::rpc::QuotaFailure& failure) {
      google::rpc::QuotaFailure::Violation* violation = failure.add_violations();
      violation->set_subject(SubjectOf(info));
      violation->set_description(details.message());
    });
  }
  if (const std::optional<int> seconds = SecondsToWait(info.reason())) {
    AddUnlessThere<google::rpc::RetryInfo>(details, [&](google::rpc::RetryInfo& retry) {
      retry.mutable_retry_delay()->set_seconds(*seconds);
    });
  }
}

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
  AddWhatTheCodeCallsFor(info, details);
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
