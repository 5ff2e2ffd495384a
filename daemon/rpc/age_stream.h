// One AgePages call: piece after piece of memory, each told of before the next is looked at.
// Thread-safe as Pump is.
#ifndef TWINROOT_DAEMON_RPC_AGE_STREAM_H_
#define TWINROOT_DAEMON_RPC_AGE_STREAM_H_

#include <memory>
#include <optional>
#include <vector>

#include "daemon/rpc/context.h"
#include "daemon/rpc/pump.h"
#include "twinroot/v1/memory.pb.h"

namespace twinroot::rpc {

class AgeStream final : public Pump<v1::AgePagesResponse> {
 public:
  // `range` nullopt: all memory.
  AgeStream(Context* context, std::shared_ptr<host::Vm> vm, std::optional<mmu::GfnRange> range);

 private:
  Next Produce(v1::AgePagesResponse* message, absl::Status* end) override;

  const std::shared_ptr<host::Vm> vm_;
  std::vector<mmu::GfnRange> left_;  // in order; Produce's own
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_AGE_STREAM_H_
