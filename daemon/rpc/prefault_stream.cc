#include "daemon/rpc/prefault_stream.h"

#include <algorithm>
#include <utility>

#include "daemon/rpc/find_vm.h"

namespace twinroot::rpc {
namespace {

// Between two messages: often enough for a person who waits, and for a caller who leaves.
constexpr uint64_t kFramesPerMessage = (uint64_t{32} << 20) / mmu::kPageSize;

}  // namespace

PrefaultStream::PrefaultStream(Context* context, std::shared_ptr<host::Vm> vm,
                               std::optional<mmu::GfnRange> range,
                               std::optional<mmu::MemoryKind> kind)
    : Pump(&context->calls.workers()), vm_(std::move(vm)), kind_(kind) {
  left_ = range.has_value() ? std::vector{*range} : vm_->Memory();
  for (const mmu::GfnRange& part : left_) total_ += part.count;
}

PrefaultStream::Next PrefaultStream::Produce(v1::PrefaultResponse* message, absl::Status* end) {
  if (told_all_) {
    *end = AboutMemory(status_, vm_->spec().name);
    return Next::kEnd;
  }
  if (!left_.empty()) {
    mmu::GfnRange& part = left_.front();
    const mmu::GfnRange piece = {part.first, std::min(part.count, kFramesPerMessage)};
    auto result = vm_->Prefault(piece, kind_);
    if (!result.ok()) {
      status_ = result.status();
    } else {
      done_ += result->frames_done;
      status_ = result->status;
    }
    part = {part.first + piece.count, part.count - piece.count};
    if (part.empty()) left_.erase(left_.begin());
  }
  message->set_bytes_done(done_ << mmu::kPageShift);
  message->set_bytes_total(total_ << mmu::kPageShift);
  told_all_ = left_.empty() || !status_.ok();
  if (told_all_) {
    message->set_outcome(status_.ok() ? v1::PrefaultResponse::OUTCOME_COMPLETE
                                      : v1::PrefaultResponse::OUTCOME_STOPPED);
    message->set_detail(std::string(status_.message()));
  } else {
    message->set_outcome(v1::PrefaultResponse::OUTCOME_GOES_ON);
  }
  return Next::kWrite;
}

}  // namespace twinroot::rpc
