// VmService::UpdateVm.
#include <google/protobuf/util/field_mask_util.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "daemon/log_vm.h"
#include "daemon/reasons.h"
#include "daemon/rpc/checks.h"
#include "daemon/rpc/convert.h"
#include "daemon/rpc/find_vm.h"
#include "daemon/rpc/status.h"
#include "daemon/rpc/unary.h"
#include "daemon/rpc/vm_service.h"

namespace twinroot::rpc {
namespace {

using google::protobuf::FieldMask;
using google::protobuf::util::FieldMaskUtil;

bool IsUpdatable(const std::string& path) {
  return (path == "labels" || path == "conversion_policy" ||
          absl::StartsWith(path, "conversion_policy.")) &&
         FieldMaskUtil::IsValidPath<v1::Vm>(path);
}

absl::Status CheckMask(const FieldMask& mask) {
  if (mask.paths().empty()) {
    return FieldError("update_mask", "name what shall change: conversion_policy, labels",
                      reason::kMissingField);
  }
  for (int i = 0; i < mask.paths_size(); ++i) {
    if (IsUpdatable(mask.paths(i))) continue;
    return FieldError(absl::StrCat("update_mask.paths[", i, "]"),
                      "names nothing that can change: use conversion_policy, a field of it, or "
                      "labels",
                      reason::kFieldNotUpdatable);
  }
  return absl::OkStatus();
}

// The settings that `vm` has after the request.
absl::StatusOr<host::VmSettings> Merge(const v1::UpdateVmRequest& request, const host::Vm& vm) {
  v1::Vm merged;
  ToProto(vm.settings(), &merged);
  FieldMaskUtil::MergeOptions options;
  options.set_replace_message_fields(true);
  options.set_replace_repeated_fields(true);
  FieldMaskUtil::MergeMessageTo(request.vm(), request.update_mask(), options, &merged);
  // What belongs to a quota goes with it, unless the request asks for it.
  v1::ConversionPolicy& policy = *merged.mutable_conversion_policy();
  const auto asked = [&request](const char* path) {
    return FieldMaskUtil::IsPathInFieldMask(path, request.update_mask());
  };
  if (policy.max_conversions_per_second() == 0 && !asked("conversion_policy.conversion_burst")) {
    policy.clear_conversion_burst();
  }
  if (policy.ping_pong_limit() == 0 && !asked("conversion_policy.ping_pong_window")) {
    policy.clear_ping_pong_window();
  }
  return SettingsOf(merged);
}

}  // namespace

grpc::ServerUnaryReactor* VmService::UpdateVm(grpc::CallbackServerContext* call,
                                              const v1::UpdateVmRequest* request,
                                              v1::UpdateVmResponse* response) {
  auto update = [this, request, response] { return Update(*request, response); };
  if (request->validate_only()) return OnWorker(context_->calls, call, update);
  return OnceOnWorker(*context_, call, *request, response, update);
}

absl::Status VmService::Update(const v1::UpdateVmRequest& request, v1::UpdateVmResponse* response) {
  auto vm = FindByResourceName(*context_->registry, "vm.name", request.vm().name());
  if (!vm.ok()) return vm.status();
  auto if_version = ParseEtag("vm.etag", request.vm().etag());
  if (!if_version.ok()) return if_version.status();
  if (absl::Status status = CheckMask(request.update_mask()); !status.ok()) return status;
  const std::string& name = (*vm)->spec().name;
  absl::Status status;
  do {
    const uint64_t version = (*vm)->status().version;
    auto settings = Merge(request, **vm);
    if (!settings.ok()) return settings.status();
    status = (*vm)->Check(*if_version);
    if (request.validate_only()) {
      if (!status.ok()) return AboutVm(std::move(status), name);
      ToProto(**vm, response->mutable_vm());
      ToProto(*settings, response->mutable_vm());
      return absl::OkStatus();
    }
    if (status.ok()) status = (*vm)->Update(*settings, if_version->value_or(version));
    // Another change came between the look and this one: without an etag that is no conflict.
  } while (absl::IsAborted(status) && !if_version->has_value());
  if (!status.ok()) return AboutVm(std::move(status), name);
  ToProto(**vm, response->mutable_vm());
  LogVm(spdlog::level::info, name, "updated");
  return absl::OkStatus();
}

}  // namespace twinroot::rpc
