#include "daemon/access/call.h"

#include <google/protobuf/message.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security_constants.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/reasons.h"
#include "daemon/status_reason.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace twinroot::access {
namespace {

using grpc::experimental::InterceptionHookPoints;

// Under this key a call carries its verdict from the interceptor to the method. No client can send
// it: HTTP/2 has no capital letters in names, and what comes under it is dropped all the same.
constexpr char kSelf[] = "Twinroot-Call";
// Names of VMs are shorter; a longer one is refused and need not fill the log.
constexpr size_t kMaxText = 128;
constexpr char kVmPrefix[] = "vms/";

std::string Cut(const std::string& text) {
  if (text.size() <= kMaxText) return text;
  size_t end = kMaxText;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;  // whole UTF-8
  return text.substr(0, end);
}

// The field's text, or "" if the message has no such field.
std::string TextOf(const google::protobuf::Message& message, const char* name) {
  const auto* field = message.GetDescriptor()->FindFieldByName(name);
  if (field == nullptr || field->is_repeated() ||
      field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_STRING) {
    return "";
  }
  return Cut(message.GetReflection()->GetString(message, field));
}

// The name of the resource that a field holds, or "".
std::string NameIn(const google::protobuf::Message& message, const char* field_name) {
  const auto* field = message.GetDescriptor()->FindFieldByName(field_name);
  if (field == nullptr || field->is_repeated() ||
      field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) {
    return "";
  }
  return TextOf(message.GetReflection()->GetMessage(message, field), "name");
}

std::string ReasonIn(const grpc::Status& status) {
  google::rpc::Status details;
  google::rpc::ErrorInfo info;
  if (status.ok() || !details.ParseFromString(status.error_details())) return "";
  for (const auto& any : details.details()) {
    if (any.Is<google::rpc::ErrorInfo>()) any.UnpackTo(&info);
  }
  return info.reason();
}

Principal OfCertificate(grpc::ServerContextBase& context) {
  Principal principal;
  principal.address = context.peer();
  const auto identity = context.auth_context();
  if (identity == nullptr || !identity->IsPeerAuthenticated()) return principal;
  for (const grpc::string_ref& uri : identity->FindPropertyValues(GRPC_PEER_URI_PROPERTY_NAME)) {
    principal.uris.emplace_back(uri.data(), uri.size());
  }
  const auto pem = identity->FindPropertyValues(GRPC_X509_PEM_CERT_PROPERTY_NAME);
  if (!pem.empty()) principal.certificate.assign(pem[0].data(), pem[0].size());
  return principal;
}

}  // namespace

Call::Call(Gatekeeper* gatekeeper, const UnixDoor* door, grpc::experimental::ServerRpcInfo* info)
    : gatekeeper_(gatekeeper), door_(door), info_(info), rule_(FindMethodRule(info->method())) {}

Call::~Call() {
  if (!begun_) return;
  gatekeeper_->Leave(this);
  // No status was sent: the caller had left.
  if (!audited_) End("CANCELLED", "");
}

Call* Call::Of(const grpc::CallbackServerContext& context) {
  const auto found = context.client_metadata().find(kSelf);
  Call* call = nullptr;
  if (found == context.client_metadata().end() || found->second.size() != sizeof(call)) {
    return nullptr;
  }
  std::memcpy(&call, found->second.data(), sizeof(call));
  return call;
}

void Call::Intercept(grpc::experimental::InterceptorBatchMethods* batch) {
  if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_INITIAL_METADATA)) {
    Begin(batch);
  }
  if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS) && begun_ &&
      !audited_) {
    const grpc::Status status = batch->GetSendStatus();
    End(absl::StatusCodeToString(static_cast<absl::StatusCode>(status.error_code())),
        ReasonIn(status));
  }
  batch->Proceed();
}

void Call::Begin(grpc::experimental::InterceptorBatchMethods* batch) {
  grpc::ServerContextBase& context = *info_->server_context();
  const auto connection = door_->Find(context.peer());
  principal_ = connection ? connection->principal : OfCertificate(context);
  name_ = principal_.Name();
  begun_ = true;
  auto* metadata = batch->GetRecvInitialMetadata();
  metadata->erase(kSelf);
  Call* self = this;
  self_.assign(reinterpret_cast<const char*>(&self), sizeof(self));
  metadata->insert({kSelf, self_});

  verdict_ = gatekeeper_->Admit(this, connection ? connection->of_user : 0);
  // gRPC's own services ask for no verdict.
  if (!verdict_.ok() && IsPublic()) {
    grpc_call_cancel_with_status(c_call(), static_cast<grpc_status_code>(verdict_.code()),
                                 std::string(verdict_.message()).c_str(), nullptr);
  }
  if (verdict_.ok() && (rule_->audited == Audited::kDenials || gatekeeper_->audit_ == nullptr)) {
    audited_ = true;
    return;
  }
  if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_MESSAGE)) {
    NameResource(batch->GetRecvMessage());
  }
}

// Methods with a row and a role are ours, and their requests are generated messages, whose only
// base is protobuf's.
void Call::NameResource(const void* request) {
  if (request == nullptr || IsPublic()) return;
  const auto& message = *static_cast<const google::protobuf::Message*>(request);
  entry_.set_request_id(TextOf(message, "request_id"));
  for (const std::string& name : {TextOf(message, "name"), TextOf(message, "vm"),
                                  TextOf(message, "vm_id"), NameIn(message, "vm")}) {
    if (name.empty()) continue;
    entry_.set_resource(name.starts_with(kVmPrefix) ? name : kVmPrefix + name);
    return;
  }
}

void Call::End(const std::string& code, const std::string& reason) {
  audited_ = true;
  if (gatekeeper_->audit_ == nullptr) return;
  if (!verdict_.ok()) {
    const std::optional<uint32_t> left_out = gatekeeper_->denials_.Take(Cut(name_), absl::Now());
    if (!left_out.has_value()) return;
    entry_.set_left_out(*left_out);
  }
  entry_.mutable_time()->set_seconds(absl::ToUnixSeconds(begin_));
  entry_.mutable_time()->set_nanos(
      static_cast<int32_t>(absl::ToUnixNanos(begin_) - absl::ToUnixSeconds(begin_) * 1000000000));
  entry_.set_principal(Cut(name_));
  if (principal_.user.has_value()) {
    entry_.set_user(principal_.user->name);
    entry_.set_pid(principal_.user->pid);
  }
  entry_.set_address(principal_.address);
  if (principal_.given != Role::kNone) entry_.set_door(NameOf(principal_.given));
  entry_.set_role(NameOf(held_));
  entry_.set_method(std::string(info_->method()).substr(1));
  entry_.set_code(code);
  entry_.set_reason(reason);
  const int64_t latency = absl::ToInt64Microseconds(absl::Now() - begin_);
  entry_.set_latency_us(
      static_cast<uint32_t>(std::clamp<int64_t>(latency, 0, std::numeric_limits<uint32_t>::max())));
  gatekeeper_->audit_->Write(entry_);
}

absl::Status Call::Revoked() const {
  return WithReason(absl::UnauthenticatedError(absl::StrCat(
                        "the certificate of ", Cut(name_), " was revoked: connect with a new one")),
                    reason::kCertificateRevoked, {{"principal", Cut(name_)}});
}

absl::Status Call::Denial() const {
  const char* needed = rule_ == nullptr ? "none that anybody can have" : NameOf(RoleNeeded());
  const std::string who = principal_.user.has_value() && !principal_.user->name.empty()
                              ? absl::StrCat(Cut(name_), " (", principal_.user->name, ")")
                              : Cut(name_);
  const std::string has =
      principal_.given == Role::kNone
          ? absl::StrCat(who, " has ", NameOf(held_),
                         ": whoever runs hvd grants roles in its configuration file, under roles")
          : absl::StrCat("this socket gives ", NameOf(held_), " to whoever uses it, ", who,
                         " too: use another socket of hvd");
  return WithReason(
      absl::PermissionDeniedError(absl::StrCat("this call needs the role ", needed, " and ", has)),
      reason::kRoleRequired,
      {{"role_required", rule_ == nullptr ? "" : NameOf(RoleNeeded())},
       {"role_held", NameOf(held_)},
       {"principal", Cut(name_)}});
}

}  // namespace twinroot::access
