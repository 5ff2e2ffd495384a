#include "daemon/rpc/attribute_stream.h"

#include <algorithm>
#include <utility>

#include "daemon/rpc/convert.h"
#include "daemon/rpc/find_vm.h"

namespace twinroot::rpc {
namespace {

constexpr size_t kRunsPerMessage = 4096;

}  // namespace

// The walk over a fragmented memory takes long: it belongs to the pool of calls.
AttributeStream::AttributeStream(Context* context, std::shared_ptr<host::Vm> vm,
                                 std::optional<mmu::GfnRange> range)
    : Pump(&context->calls.workers()), vm_(std::move(vm)), range_(range) {}

AttributeStream::Next AttributeStream::Produce(v1::GetMemoryAttributesResponse* message,
                                               absl::Status* end) {
  if (!runs_.has_value()) {
    auto runs = vm_->Attributes(range_);
    if (!runs.ok()) {
      *end = AboutMemory(runs.status(), vm_->spec().name, "range");
      return Next::kEnd;
    }
    runs_ = *std::move(runs);
  }
  if (sent_ == runs_->size()) return Next::kEnd;
  const size_t until = std::min(sent_ + kRunsPerMessage, runs_->size());
  for (; sent_ < until; ++sent_) ToProto((*runs_)[sent_], message->add_runs());
  return Next::kWrite;
}

}  // namespace twinroot::rpc
