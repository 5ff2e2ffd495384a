#include "daemon/rpc/memory_service.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "daemon/reasons.h"
#include "daemon/rpc/attribute_stream.h"
#include "daemon/rpc/checks.h"
#include "daemon/rpc/convert.h"
#include "daemon/rpc/find_vm.h"
#include "daemon/rpc/status.h"
#include "daemon/rpc/unary.h"

namespace twinroot::rpc {
namespace {

// Bytes to read or write; any alignment.
absl::Status CheckTransfer(const std::string& size_field, uint64_t gpa, uint64_t size) {
  if (size == 0 || size > kMaxTransfer) {
    return FieldError(size_field, absl::StrCat(size, " bytes; one call takes 1 to ", kMaxTransfer),
                      reason::kInvalidRange);
  }
  if (gpa + (size - 1) < gpa) {
    return FieldError("gpa",
                      absl::StrFormat("%#x bytes from %#x on wrap around the end of the address "
                                      "space",
                                      size, gpa),
                      reason::kInvalidRange);
  }
  return absl::OkStatus();
}

absl::Status AboutTransfer(absl::Status status, const std::string& vm) {
  status =
      DefaultReason(std::move(status), absl::StatusCode::kPermissionDenied, reason::kPrivateMemory);
  return AboutMemory(std::move(status), vm, "gpa");
}

}  // namespace

grpc::ServerWriteReactor<v1::GetMemoryAttributesResponse>* MemoryService::GetMemoryAttributes(
    grpc::CallbackServerContext*, const v1::GetMemoryAttributesRequest* request) {
  using Failed = FailedStream<v1::GetMemoryAttributesResponse>;
  auto vm = FindByBareName(*context_->registry, "vm", request->vm());
  if (!vm.ok()) return new Failed(vm.status());
  std::optional<mmu::GfnRange> range;
  if (request->has_range()) {
    auto checked = CheckRange("range", request->range());
    if (!checked.ok()) return new Failed(checked.status());
    range = *checked;
  }
  auto* stream = new AttributeStream(context_, *std::move(vm), range);
  stream->Wake();
  return stream;
}

grpc::ServerUnaryReactor* MemoryService::Translate(grpc::CallbackServerContext* call,
                                                   const v1::TranslateRequest* request,
                                                   v1::TranslateResponse* response) {
  return Inline(call, [&] { return Walk(*request, response); });
}

absl::Status MemoryService::Walk(const v1::TranslateRequest& request,
                                 v1::TranslateResponse* response) {
  auto vm = FindByBareName(*context_->registry, "vm", request.vm());
  if (!vm.ok()) return vm.status();
  auto alias = request.alias() == v1::MEMORY_KIND_UNSPECIFIED ? mmu::MemoryKind::kPrivate
                                                              : KindOf("alias", request.alias());
  if (!alias.ok()) return alias.status();
  auto translation = (*vm)->Translate(request.gpa(), *alias);
  if (!translation.ok()) {
    return AboutVm(DefaultReason(translation.status(), absl::StatusCode::kInvalidArgument,
                                 reason::kInvalidField, "field", "gpa"),
                   request.vm());
  }
  ToProto(*translation, response);
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* MemoryService::ReadGuestMemory(grpc::CallbackServerContext* call,
                                                         const v1::ReadGuestMemoryRequest* request,
                                                         v1::ReadGuestMemoryResponse* response) {
  return OnWorker(context_->calls, call,
                  [this, request, response] { return Read(*request, response); });
}

absl::Status MemoryService::Read(const v1::ReadGuestMemoryRequest& request,
                                 v1::ReadGuestMemoryResponse* response) {
  auto vm = FindByBareName(*context_->registry, "vm", request.vm());
  if (!vm.ok()) return vm.status();
  if (absl::Status status = CheckTransfer("size", request.gpa(), request.size()); !status.ok()) {
    return status;
  }
  auto data = (*vm)->ReadMemory(request.gpa(), request.size());
  if (!data.ok()) return AboutTransfer(data.status(), request.vm());
  response->set_data(*std::move(data));
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* MemoryService::WriteGuestMemory(
    grpc::CallbackServerContext* call, const v1::WriteGuestMemoryRequest* request,
    v1::WriteGuestMemoryResponse*) {
  return OnWorker(context_->calls, call, [this, request] { return Write(*request); });
}

absl::Status MemoryService::Write(const v1::WriteGuestMemoryRequest& request) {
  auto vm = FindByBareName(*context_->registry, "vm", request.vm());
  if (!vm.ok()) return vm.status();
  if (absl::Status status = CheckTransfer("data", request.gpa(), request.data().size());
      !status.ok()) {
    return status;
  }
  return AboutTransfer((*vm)->WriteMemory(request.gpa(), request.data()), request.vm());
}

grpc::ServerUnaryReactor* MemoryService::RecoverPages(grpc::CallbackServerContext* call,
                                                      const v1::RecoverPagesRequest* request,
                                                      v1::RecoverPagesResponse* response) {
  return OnWorker(context_->calls, call,
                  [this, request, response] { return Recover(*request, response); });
}

absl::Status MemoryService::Recover(const v1::RecoverPagesRequest& request,
                                    v1::RecoverPagesResponse* response) {
  auto vm = FindByBareName(*context_->registry, "vm", request.vm());
  if (!vm.ok()) return vm.status();
  auto ranges = CheckRanges(request.ranges());
  if (!ranges.ok()) return ranges.status();
  auto recovered = (*vm)->RecoverPages(*ranges);
  if (!recovered.ok()) return AboutMemory(recovered.status(), request.vm());
  response->set_collapsed(recovered->collapsed);
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* MemoryService::GetMemoryStats(grpc::CallbackServerContext* call,
                                                        const v1::GetMemoryStatsRequest* request,
                                                        v1::GetMemoryStatsResponse* response) {
  return Inline(call, [&] {
    auto vm = FindByBareName(*context_->registry, "vm", request->vm());
    if (!vm.ok()) return vm.status();
    ToProto((*vm)->counters(), response->mutable_stats());
    return absl::OkStatus();
  });
}

}  // namespace twinroot::rpc
