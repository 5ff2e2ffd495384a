#include "tests/cli/fake_daemon.h"

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <stdlib.h>

#include <filesystem>
#include <mutex>

#include "tests/cli/fake_dirty_log_service.h"
#include "tests/cli/fake_event_service.h"
#include "tests/cli/fake_memory_service.h"
#include "tests/cli/fake_state.h"
#include "tests/cli/fake_vm_service.h"

namespace twinroot::cli {

class FakeDaemon::Impl {
 public:
  Impl() {
    // Not TEST_TMPDIR: a socket path has at most 107 bytes.
    char folder_template[] = "/tmp/hvctl-test-XXXXXX";
    folder = mkdtemp(folder_template);
    socket = folder + "/hvd.sock";
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
    builder.RegisterService(&vm);
    builder.RegisterService(&memory);
    builder.RegisterService(&dirty_log);
    builder.RegisterService(&event);
    builder.RegisterService(&host);
    server = builder.BuildAndStart();
  }

  ~Impl() {
    {
      const std::lock_guard lock(state.mutex);
      state.draining = true;
      state.changed.notify_all();
    }
    server->Shutdown();
    std::filesystem::remove_all(folder);
  }

  // Changes the state and wakes calls that wait for it.
  template <typename Function>
  void Change(Function function) {
    const std::lock_guard lock(state.mutex);
    function(state);
    state.changed.notify_all();
  }

  mutable State state;
  std::string folder;
  std::string socket;

 private:
  FakeVmService vm{&state};
  FakeMemoryService memory{&state};
  FakeDirtyLogService dirty_log{&state};
  FakeEventService event{&state};
  FakeHostService host{&state};
  std::unique_ptr<grpc::Server> server;
};

FakeDaemon::FakeDaemon() : impl_(std::make_unique<Impl>()) {}
FakeDaemon::~FakeDaemon() = default;

const std::string& FakeDaemon::folder() const { return impl_->folder; }
const std::string& FakeDaemon::socket() const { return impl_->socket; }

v1::CreateVmRequest FakeDaemon::last_create() const {
  const std::lock_guard lock(impl_->state.mutex);
  return impl_->state.last_create;
}

v1::SetMemoryAttributesRequest FakeDaemon::last_set() const {
  const std::lock_guard lock(impl_->state.mutex);
  return impl_->state.last_set;
}

v1::EnableDirtyLogRequest FakeDaemon::last_enable() const {
  const std::lock_guard lock(impl_->state.mutex);
  return impl_->state.last_enable;
}

std::string FakeDaemon::LastOf(const std::string& type) const {
  const std::lock_guard lock(impl_->state.mutex);
  return impl_->state.last[type];
}

std::vector<size_t> FakeDaemon::upload_chunks() const {
  const std::lock_guard lock(impl_->state.mutex);
  return impl_->state.chunks;
}

int FakeDaemon::calls() const {
  const std::lock_guard lock(impl_->state.mutex);
  return impl_->state.calls;
}

void FakeDaemon::AddVm(const std::string& name) {
  impl_->Change([&](State& state) {
    v1::Vm& vm = state.vms[name];
    vm.set_name("vms/" + name);
    vm.set_state(v1::Vm::STATE_DEFINED);
    vm.set_memory_bytes(64 << 20);
    vm.set_vcpus(2);
    vm.set_backend(v1::BACKEND_SIM);
    vm.mutable_conversion_policy()->set_mode(v1::ConversionPolicy::MODE_AUTO);
  });
}

void FakeDaemon::Exit(const std::string& name, uint32_t code) {
  impl_->Change([&](State& state) {
    state.vms[name].set_state(v1::Vm::STATE_STOPPED);
    state.vms[name].set_exit_code(code);
  });
}

void FakeDaemon::Stop(const std::string& name, const std::string& reason,
                      const std::string& message) {
  impl_->Change([&](State& state) {
    state.vms[name].set_state(v1::Vm::STATE_STOPPED);
    state.vms[name].set_stop_reason(reason);
    state.vms[name].set_stop_message(message);
  });
}

void FakeDaemon::Say(const std::string& bytes) {
  impl_->Change([&](State& state) { state.console += bytes; });
}

void FakeDaemon::AddEvent(v1::Event event) {
  impl_->Change([&](State& state) {
    event.set_cursor("e-" + std::to_string(state.events.size() + 1));
    state.events.push_back(event);
  });
}

void FakeDaemon::Park(const v1::ConversionRequest& request) {
  impl_->Change([&](State& state) { state.parked.push_back(request); });
}

void FakeDaemon::RefuseNext(int code, const std::string& message) {
  impl_->Change(
      [&](State& state) { state.refusal = Status(static_cast<StatusCode>(code), message); });
}

void FakeDaemon::Drain() {
  impl_->Change([&](State& state) { state.draining = true; });
}

}  // namespace twinroot::cli
