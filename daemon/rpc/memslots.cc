// The calls of MemoryService that bring, take, move and fill memory.
#include <utility>

#include "absl/strings/str_format.h"
#include "daemon/log_vm.h"
#include "daemon/reasons.h"
#include "daemon/rpc/checks.h"
#include "daemon/rpc/convert.h"
#include "daemon/rpc/find_vm.h"
#include "daemon/rpc/memory_service.h"
#include "daemon/rpc/prefault_stream.h"
#include "daemon/rpc/status.h"
#include "daemon/rpc/unary.h"

namespace twinroot::rpc {
namespace {

constexpr uint64_t kMemoryUnit = uint64_t{2} << 20;

absl::Status CheckUnit(const std::string& field, uint64_t value) {
  if (value % kMemoryUnit == 0) return absl::OkStatus();
  return FieldError(field, absl::StrFormat("%#x is not a multiple of 2 MiB", value),
                    reason::kInvalidRange);
}

mmu::Gfn FrameOf(uint64_t gpa) { return mmu::Gfn(gpa >> mmu::kPageShift); }

}  // namespace

grpc::ServerWriteReactor<v1::PrefaultResponse>* MemoryService::Prefault(
    grpc::CallbackServerContext*, const v1::PrefaultRequest* request) {
  using Failed = FailedStream<v1::PrefaultResponse>;
  auto vm = FindByBareName(*context_->registry, "vm", request->vm());
  if (!vm.ok()) return new Failed(vm.status());
  std::optional<mmu::MemoryKind> kind;
  if (request->kind() != v1::MEMORY_KIND_UNSPECIFIED) {
    auto checked = KindOf("kind", request->kind());
    if (!checked.ok()) return new Failed(checked.status());
    kind = *checked;
  }
  std::optional<mmu::GfnRange> range;
  if (request->has_range()) {
    auto checked = CheckRange("range", request->range());
    if (!checked.ok()) return new Failed(checked.status());
    // Wrong ranges are refused before anything is mapped.
    if (auto runs = (*vm)->Attributes(*checked); !runs.ok()) {
      return new Failed(AboutMemory(runs.status(), request->vm(), "range"));
    }
    range = *checked;
  }
  auto* stream = new PrefaultStream(context_, *std::move(vm), range, kind);
  stream->Wake();
  return stream;
}

grpc::ServerUnaryReactor* MemoryService::AddMemslot(grpc::CallbackServerContext* call,
                                                    const v1::AddMemslotRequest* request,
                                                    v1::AddMemslotResponse* response) {
  auto add = [this, request] { return Add(*request); };
  if (request->validate_only()) return OnWorker(context_->calls, call, add);
  return OnceOnWorker(*context_, call, *request, response, add);
}

absl::Status MemoryService::Add(const v1::AddMemslotRequest& request) {
  auto vm = FindByBareName(*context_->registry, "vm", request.vm());
  if (!vm.ok()) return vm.status();
  auto range = CheckRange("range", request.range());
  if (!range.ok()) return range.status();
  if (absl::Status status = CheckUnit("range.gpa", request.range().gpa()); !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckUnit("range.size", request.range().size()); !status.ok()) {
    return status;
  }
  absl::Status status =
      request.validate_only() ? (*vm)->CheckAddMemslot(*range) : (*vm)->AddMemslot(*range);
  if (!status.ok() || request.validate_only()) {
    return AboutMemory(std::move(status), request.vm(), "range");
  }
  LogVm(spdlog::level::info, request.vm(), "memslot of {} MiB added", request.range().size() >> 20);
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* MemoryService::RemoveMemslot(grpc::CallbackServerContext* call,
                                                       const v1::RemoveMemslotRequest* request,
                                                       v1::RemoveMemslotResponse* response) {
  return OnceOnWorker(*context_, call, *request, response,
                      [this, request] { return Remove(*request); });
}

absl::Status MemoryService::Remove(const v1::RemoveMemslotRequest& request) {
  auto vm = FindByBareName(*context_->registry, "vm", request.vm());
  if (!vm.ok()) return vm.status();
  if (absl::Status status = CheckUnit("gpa", request.gpa()); !status.ok()) return status;
  absl::Status status = (*vm)->RemoveMemslot(FrameOf(request.gpa()));
  if (!status.ok()) return AboutMemory(std::move(status), request.vm(), "gpa");
  LogVm(spdlog::level::info, request.vm(), "memslot removed");
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* MemoryService::MoveMemslot(grpc::CallbackServerContext* call,
                                                     const v1::MoveMemslotRequest* request,
                                                     v1::MoveMemslotResponse* response) {
  return OnceOnWorker(*context_, call, *request, response,
                      [this, request] { return Move(*request); });
}

absl::Status MemoryService::Move(const v1::MoveMemslotRequest& request) {
  auto vm = FindByBareName(*context_->registry, "vm", request.vm());
  if (!vm.ok()) return vm.status();
  if (absl::Status status = CheckUnit("gpa", request.gpa()); !status.ok()) return status;
  if (absl::Status status = CheckUnit("new_gpa", request.new_gpa()); !status.ok()) return status;
  return AboutMemory((*vm)->MoveMemslot(FrameOf(request.gpa()), FrameOf(request.new_gpa())),
                     request.vm(), "new_gpa");
}

}  // namespace twinroot::rpc
