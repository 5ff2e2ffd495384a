#include "daemon/rpc/age_stream.h"

#include <algorithm>
#include <utility>

#include "daemon/rpc/convert.h"
#include "daemon/rpc/find_vm.h"

namespace twinroot::rpc {
namespace {

// 1 GiB: its runs, however many, fit into a message.
constexpr uint64_t kFramesPerLook = (uint64_t{1} << 30) / mmu::kPageSize;

}  // namespace

AgeStream::AgeStream(Context* context, std::shared_ptr<host::Vm> vm,
                     std::optional<mmu::GfnRange> range)
    : Pump(&context->calls.workers()), vm_(std::move(vm)) {
  left_ = range.has_value() ? std::vector{*range} : vm_->Memory();
}

AgeStream::Next AgeStream::Produce(v1::AgePagesResponse* message, absl::Status* end) {
  if (left_.empty()) return Next::kEnd;
  mmu::GfnRange& part = left_.front();
  const mmu::GfnRange piece = {part.first, std::min(part.count, kFramesPerLook)};
  auto runs = vm_->AgePages(piece);
  if (!runs.ok()) {
    *end = AboutMemory(runs.status(), vm_->spec().name, "range");
    return Next::kEnd;
  }
  part = {part.first + piece.count, part.count - piece.count};
  if (part.empty()) left_.erase(left_.begin());
  if (runs->empty()) return Next::kAgain;
  for (const mmu::GfnRange& run : *runs) ToProto(run, message->add_runs());
  return Next::kWrite;
}

}  // namespace twinroot::rpc
