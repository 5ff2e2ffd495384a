// The calls of MemoryService about its tables: what stands in them, and who used them.
#include <limits>
#include <utility>

#include "daemon/rpc/age_stream.h"
#include "daemon/rpc/checks.h"
#include "daemon/rpc/convert.h"
#include "daemon/rpc/find_vm.h"
#include "daemon/rpc/memory_service.h"
#include "daemon/rpc/table_stream.h"
#include "daemon/rpc/unary.h"

namespace twinroot::rpc {

grpc::ServerWriteReactor<v1::DumpTablesResponse>* MemoryService::DumpTables(
    grpc::CallbackServerContext*, const v1::DumpTablesRequest* request) {
  using Failed = FailedStream<v1::DumpTablesResponse>;
  auto vm = FindByBareName(*context_->registry, "vm", request->vm());
  if (!vm.ok()) return new Failed(vm.status());
  std::optional<mmu::MemoryKind> root;
  if (request->root() != v1::MEMORY_KIND_UNSPECIFIED) {
    auto checked = KindOf("root", request->root());
    if (!checked.ok()) return new Failed(checked.status());
    root = *checked;
  }
  auto* stream = new TableStream(context_, *std::move(vm), root);
  stream->Wake();
  return stream;
}

grpc::ServerWriteReactor<v1::AgePagesResponse>* MemoryService::AgePages(
    grpc::CallbackServerContext*, const v1::AgePagesRequest* request) {
  using Failed = FailedStream<v1::AgePagesResponse>;
  auto vm = FindByBareName(*context_->registry, "vm", request->vm());
  if (!vm.ok()) return new Failed(vm.status());
  std::optional<mmu::GfnRange> range;
  if (request->has_range()) {
    auto checked = CheckRange("range", request->range());
    if (!checked.ok()) return new Failed(checked.status());
    // Wrong ranges are refused before anything is forgotten.
    if (auto runs = (*vm)->Attributes(*checked); !runs.ok()) {
      return new Failed(AboutMemory(runs.status(), request->vm(), "range"));
    }
    range = *checked;
  }
  auto* stream = new AgeStream(context_, *std::move(vm), range);
  stream->Wake();
  return stream;
}

grpc::ServerUnaryReactor* MemoryService::RecoverNxPages(grpc::CallbackServerContext* call,
                                                        const v1::RecoverNxPagesRequest* request,
                                                        v1::RecoverNxPagesResponse* response) {
  return OnWorker(context_->calls, call,
                  [this, request, response] { return RecoverNx(*request, response); });
}

absl::Status MemoryService::RecoverNx(const v1::RecoverNxPagesRequest& request,
                                      v1::RecoverNxPagesResponse* response) {
  auto vm = FindByBareName(*context_->registry, "vm", request.vm());
  if (!vm.ok()) return vm.status();
  const uint64_t max =
      request.max_pages() == 0 ? std::numeric_limits<uint64_t>::max() : request.max_pages();
  auto recovered = (*vm)->RecoverNxPages(max);
  if (!recovered.ok()) return AboutMemory(recovered.status(), request.vm());
  response->set_collapsed(recovered->collapsed);
  return absl::OkStatus();
}

}  // namespace twinroot::rpc
