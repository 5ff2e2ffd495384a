#include "cli/failure.h"

#include <google/protobuf/util/time_util.h>

#include <map>

#include "absl/strings/str_cat.h"
#include "cli/explanations.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace twinroot::cli {
namespace {

using Metadata = google::protobuf::Map<std::string, std::string>;

struct Details {
  google::rpc::ErrorInfo info;
  google::rpc::BadRequest bad_request;
};

Details DecodeDetails(const grpc::Status& status) {
  Details details;
  google::rpc::Status rich;
  // Details that do not decode are treated as missing: the code and the sentence still stand.
  if (!rich.ParseFromString(status.error_details())) return details;
  for (const google::protobuf::Any& any : rich.details()) {
    if (any.Is<google::rpc::ErrorInfo>()) any.UnpackTo(&details.info);
    if (any.Is<google::rpc::BadRequest>()) any.UnpackTo(&details.bad_request);
  }
  return details;
}

std::string Get(const Metadata& metadata, const char* key, const char* otherwise) {
  const auto found = metadata.find(key);
  return found == metadata.end() || found->second.empty() ? otherwise : found->second;
}

std::string HintOfReason(const google::rpc::ErrorInfo& info) {
  const std::string& reason = info.reason();
  const Metadata& facts = info.metadata();
  // What the metadata makes another sentence of.
  if (const std::string oldest = Get(facts, "oldest_cursor", ""); !oldest.empty()) {
    return absl::StrCat("the oldest event kept is at --since ", oldest);
  }
  if (reason == "NOT_ON_THIS_BACKEND" && facts.contains("needs_mmu")) {
    return "create the VM with --mmu tdp";
  }
  if (reason == "WRONG_STATE" && !facts.contains("vm")) return "";
  for (const Explanation* explanation : Explain(reason)) {
    if (explanation->subject != Subject::kReason || explanation->as_hint == AsHint::kNo) continue;
    return NextStep(*explanation,
                    [&](const std::string& key) { return Get(facts, key.c_str(), ""); });
  }
  return "";
}

std::string HintOfCode(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::UNAVAILABLE:
      return "is hvd running? name its socket with --endpoint PATH or HVCTL_ENDPOINT";
    case grpc::StatusCode::NOT_FOUND:
      return "`hvctl vm list` shows the VMs";
    case grpc::StatusCode::FAILED_PRECONDITION:
      return "`hvctl vm get NAME` shows its state, `hvctl host show` the host";
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return "`hvctl host show` shows the limits, `hvctl vm list` what is in use";
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return "hvd did not answer in time; look at its log";
    case grpc::StatusCode::UNIMPLEMENTED:
      return "hvd and hvctl are of different versions: see `hvctl version`";
    case grpc::StatusCode::PERMISSION_DENIED:
    case grpc::StatusCode::UNAUTHENTICATED:
      return "run hvctl as a user that hvd allows";
    case grpc::StatusCode::INTERNAL:
    case grpc::StatusCode::UNKNOWN:
    case grpc::StatusCode::DATA_LOSS:
      return "this is a fault of hvd; look at its log";
    default:
      return "";
  }
}

std::string HintOf(const grpc::Status& status) {
  const Details details = DecodeDetails(status);
  std::string hint = HintOfReason(details.info);
  if (!hint.empty()) return hint;
  // The fields say more than the code does, unless the sentence has said it already.
  for (const auto& violation : details.bad_request.field_violations()) {
    if (status.error_message().find(violation.description()) != std::string::npos) continue;
    absl::StrAppend(&hint, hint.empty() ? "" : "; ", violation.field(), ": ",
                    violation.description());
  }
  return hint.empty() ? HintOfCode(status.error_code()) : hint;
}

}  // namespace

int ExitCodeOf(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::OK:
      return kOk;
    case grpc::StatusCode::INVALID_ARGUMENT:
      return kUsage;
    case grpc::StatusCode::NOT_FOUND:
      return kNotFound;
    case grpc::StatusCode::UNAVAILABLE:
      return kUnavailable;
    case grpc::StatusCode::ALREADY_EXISTS:
    case grpc::StatusCode::FAILED_PRECONDITION:
    case grpc::StatusCode::ABORTED:
      return kConflict;
    case grpc::StatusCode::PERMISSION_DENIED:
    case grpc::StatusCode::UNAUTHENTICATED:
      return kDenied;
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return kTimeout;
    default:
      return kFailure;
  }
}

std::string ReasonOf(const grpc::Status& status) { return DecodeDetails(status).info.reason(); }

std::string MetadataOf(const grpc::Status& status, const std::string& key) {
  return Get(DecodeDetails(status).info.metadata(), key.c_str(), "");
}

Failure RpcFailure(const std::string& what, const grpc::Status& status) {
  const std::string sentence = status.error_message().empty()
                                   ? absl::StrCat("code ", static_cast<int>(status.error_code()))
                                   : status.error_message();
  // A sentence that names a command has said the next step.
  const bool says_next_step = sentence.find("hvctl ") != std::string::npos;
  return Failure{ExitCodeOf(status.error_code()), absl::StrCat(what, ": ", sentence),
                 says_next_step ? "" : HintOf(status)};
}

}  // namespace twinroot::cli
