// One Prefault call: maps piece after piece, and tells of each. It stops where the caller leaves.
// Thread-safe as Pump is.
#ifndef TWINROOT_DAEMON_RPC_PREFAULT_STREAM_H_
#define TWINROOT_DAEMON_RPC_PREFAULT_STREAM_H_

#include <memory>
#include <optional>
#include <vector>

#include "daemon/rpc/context.h"
#include "daemon/rpc/pump.h"
#include "twinroot/v1/memory.pb.h"

namespace twinroot::rpc {

class PrefaultStream final : public Pump<v1::PrefaultResponse> {
 public:
  // `kind` nullopt: each page by its attribute. `range` nullopt: all memory.
  PrefaultStream(Context* context, std::shared_ptr<host::Vm> vm, std::optional<mmu::GfnRange> range,
                 std::optional<mmu::MemoryKind> kind);

 private:
  Next Produce(v1::PrefaultResponse* message, absl::Status* end) override;

  const std::shared_ptr<host::Vm> vm_;
  const std::optional<mmu::MemoryKind> kind_;
  // Produce's own.
  std::vector<mmu::GfnRange> left_;  // in order
  uint64_t total_ = 0;               // frames
  uint64_t done_ = 0;
  bool told_all_ = false;
  absl::Status status_;
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_PREFAULT_STREAM_H_
