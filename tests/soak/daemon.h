// The daemon that is soaked: a connection to it, and what its process costs. Thread-safe.
#ifndef TWINROOT_TESTS_SOAK_DAEMON_H_
#define TWINROOT_TESTS_SOAK_DAEMON_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "grpcpp/grpcpp.h"
#include "tests/client/connection.h"
#include "twinroot/v1/dirty_log.grpc.pb.h"
#include "twinroot/v1/event.grpc.pb.h"
#include "twinroot/v1/host.grpc.pb.h"
#include "twinroot/v1/memory.grpc.pb.h"
#include "twinroot/v1/vm.grpc.pb.h"

namespace twinroot::soak {

using client::Must;
using client::NameOf;

struct Daemon {
  explicit Daemon(const std::string& endpoint);

  const std::shared_ptr<grpc::Channel> channel;
  const std::unique_ptr<v1::VmService::Stub> vms;
  const std::unique_ptr<v1::MemoryService::Stub> memory;
  const std::unique_ptr<v1::DirtyLogService::Stub> dirty_log;
  const std::unique_ptr<v1::EventService::Stub> events;
  const std::unique_ptr<v1::HostService::Stub> host;
};

// Every call is to be answered within this.
inline constexpr std::chrono::seconds kPatience(60);

// One call, with its deadline.
template <typename Stub, typename Request, typename Response>
grpc::Status Call(Stub* stub,
                  grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                  const Request& request, Response* response) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  return (stub->*method)(&context, request, response);
}

// A stream, to its end; `each` is given its messages.
template <typename Response, typename Stub, typename Request, typename Each>
grpc::Status Stream(Stub* stub,
                    std::unique_ptr<grpc::ClientReader<Response>> (Stub::*method)(
                        grpc::ClientContext*, const Request&),
                    const Request& request, Each each) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  const auto reader = (stub->*method)(&context, request);
  for (Response response; reader->Read(&response);) each(response);
  return reader->Finish();
}

// What a process holds, from /proc.
struct Holdings {
  int64_t memory = 0;        // bytes, anonymous and resident
  int64_t guest_memory = 0;  // bytes of shared memory, which guests' is
  int64_t threads = 0;
  int64_t files = 0;
  int64_t mappings = 0;
  int64_t guest_mappings = 0;  // of guests' memory

  static Holdings Of(int pid);
  // Of each the larger one.
  void Raise(const Holdings& other);
};

}  // namespace twinroot::soak

#endif  // TWINROOT_TESTS_SOAK_DAEMON_H_
