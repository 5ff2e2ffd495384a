// A daemon for tests of hvctl: the services on a unix socket in a folder of its own, with a
// little state and none of a hypervisor. Its refusals have the codes and reasons of the real one.
// Thread-safe. gRPC stays out of this header.
#ifndef TWINROOT_TESTS_CLI_FAKE_DAEMON_H_
#define TWINROOT_TESTS_CLI_FAKE_DAEMON_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "twinroot/v1/dirty_log.pb.h"
#include "twinroot/v1/event.pb.h"
#include "twinroot/v1/memory.pb.h"
#include "twinroot/v1/vm.pb.h"

namespace twinroot::cli {

class FakeDaemon {
 public:
  FakeDaemon();
  ~FakeDaemon();

  // In a folder that is removed with the daemon; tests may put files beside it.
  const std::string& folder() const;
  const std::string& socket() const;

  // What calls brought.
  v1::CreateVmRequest last_create() const;
  v1::SetMemoryAttributesRequest last_set() const;
  v1::EnableDirtyLogRequest last_enable() const;
  // Of a call that the fake notes; empty if there was none.
  template <typename Request>
  Request last() const {
    Request request;
    request.ParseFromString(LastOf(request.GetTypeName()));
    return request;
  }
  std::vector<size_t> upload_chunks() const;
  int calls() const;

  // What the guest does.
  void AddVm(const std::string& name);
  void Exit(const std::string& name, uint32_t code);
  void Stop(const std::string& name, const std::string& reason, const std::string& message);
  void Say(const std::string& bytes);
  // Numbers the event; its cursor is "e-<number>", counted from 1.
  void AddEvent(v1::Event event);
  void Park(const v1::ConversionRequest& request);

  // The next call is refused with this gRPC code.
  void RefuseNext(int code, const std::string& message);
  // Streams that follow end, as when the daemon shuts down.
  void Drain();

 private:
  std::string LastOf(const std::string& type) const;

  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace twinroot::cli

#endif  // TWINROOT_TESTS_CLI_FAKE_DAEMON_H_
