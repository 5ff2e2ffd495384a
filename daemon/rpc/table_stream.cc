#include "daemon/rpc/table_stream.h"

#include <utility>

#include "daemon/rpc/convert.h"
#include "daemon/rpc/find_vm.h"

namespace twinroot::rpc {
namespace {

// 512 KiB: well below gRPC's limit, and a VM's changes wait only so long.
constexpr size_t kTablesPerMessage = 128;

}  // namespace

TableStream::TableStream(Context* context, std::shared_ptr<host::Vm> vm,
                         std::optional<mmu::MemoryKind> root)
    : Pump(&context->calls.workers()), vm_(std::move(vm)) {
  if (root.has_value()) {
    left_ = {*root};
  } else {
    left_ = {mmu::MemoryKind::kPrivate, mmu::MemoryKind::kShared};
  }
}

TableStream::Next TableStream::Produce(v1::DumpTablesResponse* message, absl::Status* end) {
  while (!left_.empty()) {
    const mmu::MemoryKind root = left_.front();
    auto tables = vm_->DumpTables(root, last_.has_value() ? &*last_ : nullptr, kTablesPerMessage);
    if (!tables.ok()) {
      *end = AboutVm(tables.status(), vm_->spec().name);
      return Next::kEnd;
    }
    if (tables->empty()) {
      left_.erase(left_.begin());
      last_.reset();
      continue;
    }
    message->set_root(ToProto(root));
    message->set_ept_pointer(vm_->ept_pointer(root).raw());
    for (const mmu::TableImage& table : *tables) ToProto(table, message->add_tables());
    last_ = tables->back();
    return Next::kWrite;
  }
  return Next::kEnd;
}

}  // namespace twinroot::rpc
