// A daemon in this process, on a unix socket, with VMs on sim and no KVM; and a client that sends
// it any bytes. One for the whole process; Reset makes its VMs anew.
//
// There is always a VM "keeper": it has written a secret into its private memory, and waits for
// the decision about a conversion of another page.
#ifndef TWINROOT_TESTS_FUZZ_RPC_WORLD_H_
#define TWINROOT_TESTS_FUZZ_RPC_WORLD_H_

#include <google/protobuf/descriptor.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "daemon/access/audit_log.h"
#include "daemon/access/gatekeeper.h"
#include "daemon/events/journal.h"
#include "daemon/host/vm_registry.h"
#include "daemon/obs/metrics.h"
#include "daemon/rpc/server.h"
#include "tests/fuzz/no_kvm.h"

namespace twinroot::fuzz {

struct Answer {
  grpc::Status status;
  std::vector<std::string> messages;  // as they came
};

class RpcWorld {
 public:
  RpcWorld();
  ~RpcWorld();

  // All VMs go, a new keeper comes; the host takes VMs.
  void Reset();

  Answer Call(const google::protobuf::MethodDescriptor& method,
              const std::vector<std::string>& requests, std::chrono::milliseconds patience);

  // What a failed call must leave as it is: VMs that stand still, with their memory and what they
  // are set to; which others there are; and, if all stand still, how many events there were.
  // By name; nullopt: it goes on by itself, and may stand still a moment later.
  using Standing = std::map<std::string, std::optional<std::string>>;
  Standing Digest() const;
  // What of `before` is other than it was; "" if nothing.
  std::string ChangedSince(const Standing& before) const;
  void CheckAudits() const;
  // The secret is in none of these, nor in what was logged since the last time.
  void CheckSilence(const Answer& answer);

  const std::string& secret() const { return secret_; }

 private:
  void MakeKeeper();
  bool Discloses(const std::string& text) const;

  NoKvm no_kvm_;
  std::string folder_;
  std::string secret_;
  std::string secret_in_hex_;
  std::ostringstream log_;
  std::streamoff audit_read_ = 0;
  events::Journal journal_;
  std::unique_ptr<obs::Metrics> metrics_;
  std::unique_ptr<host::VmRegistry> registry_;
  std::unique_ptr<access::AuditLog> audit_;
  std::unique_ptr<access::Gatekeeper> gatekeeper_;
  std::unique_ptr<rpc::Server> server_;
  std::unique_ptr<grpc::GenericStub> stub_;
  grpc::CompletionQueue queue_;
};

}  // namespace twinroot::fuzz

#endif  // TWINROOT_TESTS_FUZZ_RPC_WORLD_H_
