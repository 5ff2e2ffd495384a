// One DumpTables call: tables of one root after another's, so many a message.
// Thread-safe as Pump is.
#ifndef TWINROOT_DAEMON_RPC_TABLE_STREAM_H_
#define TWINROOT_DAEMON_RPC_TABLE_STREAM_H_

#include <memory>
#include <optional>
#include <vector>

#include "daemon/rpc/context.h"
#include "daemon/rpc/pump.h"
#include "twinroot/v1/memory.pb.h"

namespace twinroot::rpc {

class TableStream final : public Pump<v1::DumpTablesResponse> {
 public:
  // `root` nullopt: both.
  TableStream(Context* context, std::shared_ptr<host::Vm> vm, std::optional<mmu::MemoryKind> root);

 private:
  Next Produce(v1::DumpTablesResponse* message, absl::Status* end) override;

  const std::shared_ptr<host::Vm> vm_;
  // Produce's own.
  std::vector<mmu::MemoryKind> left_;    // roots, the present one first
  std::optional<mmu::TableImage> last_;  // of the present one
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_TABLE_STREAM_H_
