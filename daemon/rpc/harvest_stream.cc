#include "daemon/rpc/harvest_stream.h"

#include <algorithm>
#include <utility>

#include "daemon/rpc/convert.h"
#include "daemon/rpc/find_vm.h"

namespace twinroot::rpc {
namespace {

constexpr size_t kRunsPerMessage = 4096;

}  // namespace

// The walk over all tables takes long: it belongs to the pool of calls.
HarvestStream::HarvestStream(Context* context, grpc::CallbackServerContext* call,
                             std::shared_ptr<host::Vm> vm, std::optional<mmu::GfnRange> range)
    : Pump(&context->calls.workers()), call_(call), vm_(std::move(vm)), range_(range) {}

HarvestStream::~HarvestStream() {
  if (runs_.has_value() && call_->IsCancelled()) vm_->UndoHarvest(*runs_);
}

HarvestStream::Next HarvestStream::Produce(v1::HarvestDirtyLogResponse* message,
                                           absl::Status* end) {
  if (!runs_.has_value()) {
    auto runs = vm_->HarvestDirty(range_);
    if (!runs.ok()) {
      *end = AboutMemory(runs.status(), vm_->spec().name);
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
