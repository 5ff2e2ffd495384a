// One GetMemoryAttributes call: the runs, taken at once and sent in messages that fit gRPC's limit.
// Thread-safe as Pump is.
#ifndef TWINROOT_DAEMON_RPC_ATTRIBUTE_STREAM_H_
#define TWINROOT_DAEMON_RPC_ATTRIBUTE_STREAM_H_

#include <memory>
#include <optional>
#include <vector>

#include "daemon/rpc/context.h"
#include "daemon/rpc/pump.h"
#include "twinroot/v1/memory.pb.h"

namespace twinroot::rpc {

class AttributeStream final : public Pump<v1::GetMemoryAttributesResponse> {
 public:
  AttributeStream(Context* context, std::shared_ptr<host::Vm> vm,
                  std::optional<mmu::GfnRange> range);

 private:
  Next Produce(v1::GetMemoryAttributesResponse* message, absl::Status* end) override;

  const std::shared_ptr<host::Vm> vm_;
  const std::optional<mmu::GfnRange> range_;
  // Produce's own.
  std::optional<std::vector<mmu::AttributeRun>> runs_;
  size_t sent_ = 0;
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_ATTRIBUTE_STREAM_H_
