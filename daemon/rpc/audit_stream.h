// One Audit call: looks at VM after VM, and tells of each before it looks at the next.
// Thread-safe as Pump is.
#ifndef TWINROOT_DAEMON_RPC_AUDIT_STREAM_H_
#define TWINROOT_DAEMON_RPC_AUDIT_STREAM_H_

#include <memory>
#include <string>

#include "daemon/rpc/context.h"
#include "daemon/rpc/pump.h"
#include "twinroot/v1/host.pb.h"

namespace twinroot::rpc {

class AuditStream final : public Pump<v1::AuditResponse> {
 public:
  // `only`: this VM; null: all.
  AuditStream(Context* context, std::shared_ptr<host::Vm> only);

 private:
  Next Produce(v1::AuditResponse* message, absl::Status* end) override;
  // Null: there is none left.
  std::shared_ptr<host::Vm> NextVm();

  Context* const context_;
  // Produce's own.
  std::shared_ptr<host::Vm> only_;
  const bool all_;
  std::string after_;
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_AUDIT_STREAM_H_
