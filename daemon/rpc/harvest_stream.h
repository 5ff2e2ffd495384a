// One HarvestDirtyLog call: taken at once and sent in messages that fit gRPC's limit. If its caller
// leaves before the end, the harvest is undone. Thread-safe as Pump is.
#ifndef TWINROOT_DAEMON_RPC_HARVEST_STREAM_H_
#define TWINROOT_DAEMON_RPC_HARVEST_STREAM_H_

#include <memory>
#include <optional>
#include <vector>

#include "daemon/rpc/context.h"
#include "daemon/rpc/pump.h"
#include "twinroot/v1/dirty_log.pb.h"

namespace twinroot::rpc {

class HarvestStream final : public Pump<v1::HarvestDirtyLogResponse> {
 public:
  HarvestStream(Context* context, grpc::CallbackServerContext* call, std::shared_ptr<host::Vm> vm,
                std::optional<mmu::GfnRange> range);
  // When the call is done.
  ~HarvestStream() override;

 private:
  Next Produce(v1::HarvestDirtyLogResponse* message, absl::Status* end) override;

  grpc::CallbackServerContext* const call_;
  const std::shared_ptr<host::Vm> vm_;
  const std::optional<mmu::GfnRange> range_;
  // Produce's own.
  std::optional<std::vector<mmu::GfnRange>> runs_;
  size_t sent_ = 0;
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_HARVEST_STREAM_H_
