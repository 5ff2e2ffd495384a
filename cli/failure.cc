#include "cli/failure.h"

#include <google/protobuf/util/time_util.h>

#include <map>

#include "absl/strings/str_cat.h"
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
  if (reason == "NO_SUCH_VM") return "`hvctl vm list` shows the VMs";
  if (reason == "VM_EXISTS") {
    return absl::StrCat("take another name, or `hvctl vm delete ", Get(facts, "vm", "NAME"), "`");
  }
  if (reason == "INVALID_NAME") return "a name is a-z, then a-z, 0-9 or '-', at most 63 characters";
  if (reason == "INVALID_RANGE")
    return "`hvctl memory get NAME` shows the VM's memory; addresses and sizes are multiples of "
           "4KiB";
  if (reason == "PRIVATE_MEMORY") {
    return "`hvctl memory get NAME` shows which ranges are shared; only those can be read or "
           "written";
  }
  if (reason == "PRESERVE_WOULD_DISCLOSE") {
    return "leave out --preserve, or let the guest share the range itself";
  }
  if (reason == "CURSOR_EXPIRED" || reason == "CURSOR_OTHER_EPOCH" ||
      reason == "CURSOR_IN_FUTURE") {
    const std::string oldest = Get(facts, "oldest_cursor", "");
    return oldest.empty() ? "leave out --since to begin at the oldest event kept"
                          : absl::StrCat("the oldest event kept is at --since ", oldest);
  }
  if (reason == "CURSOR_MALFORMED") return "take a cursor from `hvctl events -o json`";
  if (reason == "WRONG_STATE" && facts.contains("vm")) {
    return absl::StrCat("`hvctl vm get ", facts.at("vm"), "` shows its state");
  }
  if (reason == "DIRTY_LOG_OFF") {
    return absl::StrCat("`hvctl dirty enable ", Get(facts, "vm", "NAME"), "` begins one");
  }
  if (reason == "DIRTY_LOG_ON") {
    return absl::StrCat("`hvctl dirty disable ", Get(facts, "vm", "NAME"), "` ends it");
  }
  if (reason == "NO_CONSOLE_INPUT")
    return "watch its console with `hvctl vm console NAME --follow`";
  if (reason == "DIRTY_LOG_NOT_MANUAL") return "enable it with --manual-clear";
  if (reason == "DIRTY_LOG_UNSUPPORTED")
    return "VMs of --backend kvm log by write protection, those of sim with --mmu tdp in every "
           "mode";
  if (reason == "NOT_ON_THIS_BACKEND") {
    return absl::StrCat("create the VM with ",
                        facts.contains("needs_mmu") ? "--mmu tdp" : "--backend sim");
  }
  if (reason == "ROLE_REQUIRED") {
    return absl::StrCat("ask for the role ", Get(facts, "role_required", "that it needs"),
                        ", or run hvctl as a user that has it");
  }
  if (reason == "TOO_MANY_CALLS" || reason == "TOO_MANY_CONNECTIONS") {
    return "wait until calls of yours have ended, or raise the limits in hvd's configuration";
  }
  if (reason == "MEMSLOT_EXISTS" || reason == "NO_SUCH_MEMSLOT") {
    return absl::StrCat("`hvctl memory get ", Get(facts, "vm", "NAME"), "` shows the VM's memory");
  }
  if (reason == "DENIAL_UNSUPPORTED") return "`hvctl host show` shows what this host can enforce";
  if (reason == "DAEMON_STOPPING") return "start hvd again; VMs of before are gone";
  if (reason == "BACKEND_UNAVAILABLE" || reason == "IMAGE_NEEDS_KVM") {
    return "`hvctl host show` shows what this host can do";
  }
  if (reason == "ETAG_MISMATCH") {
    return absl::StrCat("`hvctl vm get ", Get(facts, "vm", "NAME"),
                        " -o json` shows it as it is, with its etag");
  }
  if (reason == "CERTIFICATE_REVOKED") return "get a new certificate, and give it with --cert";
  if (reason == "WATCH_TOO_SLOW") {
    return absl::StrCat("go on with --since ", Get(facts, "cursor", "CURSOR"));
  }
  if (reason == "REQUEST_ID_REUSED") return "take a new --request-id for each new command";
  if (reason == "FIELD_NOT_UPDATABLE") return "delete the VM and create it as you want it";
  if (reason == "NX_HUGE_PAGES_OFF") return "create the VM with --nx-huge-pages on";
  if (reason == "TOO_MUCH_MEMORY") {
    return absl::StrCat("`hvctl memory remove ", Get(facts, "vm", "NAME"),
                        " GPA` takes added memory away");
  }
  if (reason == "IMAGE_STORE_FULL") return "delete VMs that use other images, then try again";
  return "";
}

std::string HintOfCode(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::UNAVAILABLE:
      return "is hvd running? name its socket with --endpoint PATH or HVCTL_ENDPOINT";
    case grpc::StatusCode::NOT_FOUND:
      return "`hvctl vm list` shows the VMs";
    case grpc::StatusCode::FAILED_PRECONDITION:
      return "`hvctl vm get NAME` shows the VM's state, `hvctl host show` what this host can do";
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
