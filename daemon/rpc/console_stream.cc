#include "daemon/rpc/console_stream.h"

#include <utility>

namespace twinroot::rpc {
namespace {

constexpr size_t kMaxMessage = 64 * 1024;

}  // namespace

ConsoleStream::ConsoleStream(Context* context, std::shared_ptr<host::Vm> vm, Mode mode,
                             uint64_t offset)
    : Pump(&context->streams), context_(context), vm_(std::move(vm)), mode_(mode), offset_(offset) {
  Open();
}

void ConsoleStream::Begin() {
  if (mode_ == Mode::kFollow) {
    drain_ = context_->on_drain.Add([this] { Wake(); });
    spoke_ = vm_->OnConsole([this] { Wake(); });
    stopped_ = vm_->OnStopped([this](const absl::Status&) {
      gone_ = true;
      Wake();
    });
  }
  Wake();
}

ConsoleStream::Next ConsoleStream::Produce(v1::StreamConsoleResponse* message, absl::Status*) {
  if (last_) return Next::kEnd;
  // Asked before reading: when it says so, the read below sees all there will ever be.
  const bool complete = gone_ || context_->draining;
  host::Vm::ConsoleChunk chunk = vm_->ReadConsole(offset_, kMaxMessage);
  // A snapshot ends where the console stood: a guest that goes on talking does not prolong it.
  last_ = mode_ == Mode::kSnapshot && chunk.data.size() < kMaxMessage;
  if (chunk.data.empty()) {
    return last_ || complete || chunk.ended ? Next::kEnd : Next::kWait;
  }
  offset_ = chunk.offset + chunk.data.size();
  message->set_offset(chunk.offset);
  message->set_data(std::move(chunk.data));
  return Next::kWrite;
}

}  // namespace twinroot::rpc
