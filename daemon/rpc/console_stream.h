// One StreamConsole call: what the console said, and what it says until the VM ends.
// Thread-safe as Pump is.
#ifndef TWINROOT_DAEMON_RPC_CONSOLE_STREAM_H_
#define TWINROOT_DAEMON_RPC_CONSOLE_STREAM_H_

#include <atomic>
#include <memory>

#include "daemon/rpc/context.h"
#include "daemon/rpc/pump.h"
#include "twinroot/v1/vm.pb.h"

namespace twinroot::rpc {

class ConsoleStream final : public Pump<v1::StreamConsoleResponse> {
 public:
  enum class Mode : uint8_t { kSnapshot, kFollow };

  ConsoleStream(Context* context, std::shared_ptr<host::Vm> vm, Mode mode, uint64_t offset);
  // Once, before the reactor is given to gRPC.
  void Begin();

 private:
  Next Produce(v1::StreamConsoleResponse* message, absl::Status* end) override;

  Context* const context_;
  const std::shared_ptr<host::Vm> vm_;
  const Mode mode_;
  uint64_t offset_;                // Produce's own
  bool last_ = false;              // Produce's own: a snapshot is through
  std::atomic<bool> gone_{false};  // stopped or deleted: what is there is all

  std::unique_ptr<host::Vm::Waiter> spoke_;
  std::unique_ptr<host::Vm::Waiter> stopped_;
  std::unique_ptr<CallbackHandle> drain_;
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_CONSOLE_STREAM_H_
