// One connection to the daemon and the calls that the load is made of. Thread-safe.
// A call that fails although it must not ends the program with the status on stderr.
#ifndef TWINROOT_TESTS_LOAD_CLIENT_H_
#define TWINROOT_TESTS_LOAD_CLIENT_H_

#include <cstdint>
#include <memory>
#include <string>

#include "grpcpp/channel.h"
#include "tests/client/connection.h"
#include "twinroot/v1/event.grpc.pb.h"
#include "twinroot/v1/host.grpc.pb.h"
#include "twinroot/v1/memory.grpc.pb.h"
#include "twinroot/v1/program.pb.h"
#include "twinroot/v1/vm.grpc.pb.h"

namespace twinroot::load {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kVmBytes = 16 << 20;

using client::Must;

class Client {
 public:
  // A connection of its own, even beside others to the same endpoint.
  explicit Client(const std::string& endpoint);

  v1::EventService::Stub& events() { return *events_; }

  // A VM of kVmBytes on sim.
  void CreateVm(const std::string& vm, const v1::AccessProgram& program = {});
  void StartVm(const std::string& vm);
  // Where the event stream stands.
  std::string Cursor();

  // A call that has next to nothing to do: the conversions that wait in a VM that has none.
  void Empty(const std::string& vm);
  void GetHost();
  // One page, so that it changes if it was of the other kind.
  void SetMemoryAttributes(const std::string& vm, uint64_t gpa, v1::MemoryKind kind);
  void GetMemoryAttributes(const std::string& vm);
  void Translate(const std::string& vm, uint64_t gpa);
  void ListEvents(const std::string& cursor);

 private:
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::VmService::Stub> vms_;
  const std::unique_ptr<v1::MemoryService::Stub> memory_;
  const std::unique_ptr<v1::EventService::Stub> events_;
  const std::unique_ptr<v1::HostService::Stub> host_;
};

}  // namespace twinroot::load

#endif  // TWINROOT_TESTS_LOAD_CLIENT_H_
