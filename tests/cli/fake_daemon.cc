#include "tests/cli/fake_daemon.h"

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "twinroot/v1/event.grpc.pb.h"
#include "twinroot/v1/host.grpc.pb.h"
#include "twinroot/v1/memory.grpc.pb.h"
#include "twinroot/v1/vm.grpc.pb.h"

namespace twinroot::cli {
namespace {

using grpc::ServerContext;
using grpc::Status;
using grpc::StatusCode;

constexpr uint64_t kPage = 4096;
constexpr size_t kVmsPerPage = 2;
constexpr std::chrono::milliseconds kPoll{5};
// Shared memory of every VM; everything else is private.
constexpr uint64_t kSharedBegin = 0x200000;
constexpr uint64_t kSharedSize = 3 << 20;

Status Refuse(StatusCode code, const std::string& message, const std::string& reason,
              const std::map<std::string, std::string>& facts = {}) {
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  info.set_domain("twinroot");
  info.mutable_metadata()->insert(facts.begin(), facts.end());
  google::rpc::Status rich;
  rich.set_code(static_cast<int>(code));
  rich.set_message(message);
  rich.add_details()->PackFrom(info);
  return Status(code, message, rich.SerializeAsString());
}

Status NoSuchVm(const std::string& name) {
  return Refuse(StatusCode::NOT_FOUND, "there is no vm '" + name + "'", "NO_SUCH_VM",
                {{"vm", name}});
}

bool IsName(const std::string& name) {
  return !name.empty() && name.size() <= 63 && name[0] >= 'a' && name[0] <= 'z' &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
}

std::string Bare(const std::string& resource) {
  return resource.rfind("vms/", 0) == 0 ? resource.substr(4) : "";
}

}  // namespace

struct State {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::string, v1::Vm> vms;
  std::string console;
  std::vector<v1::Event> events;
  std::vector<v1::ConversionRequest> parked;
  std::string shared = std::string(kSharedSize, '\0');
  v1::CreateVmRequest last_create;
  v1::SetMemoryAttributesRequest last_set;
  std::vector<size_t> chunks;
  std::optional<Status> refusal;
  bool draining = false;
  int calls = 0;

  // Counts the call; the refusal that a test asked for, if any.
  Status Enter() {
    ++calls;
    const Status status = refusal.value_or(Status::OK);
    refusal.reset();
    return status;
  }

  // Waits until `done`, or the client has gone, or the daemon drains.
  template <typename Predicate>
  void WaitFor(std::unique_lock<std::mutex>& lock, ServerContext* context, Predicate done) {
    while (!done() && !context->IsCancelled() && !draining) changed.wait_for(lock, kPoll);
  }
};

class FakeVmService : public v1::VmService::Service {
 public:
  explicit FakeVmService(State* state) : state_(*state) {}

  Status UploadImage(ServerContext*, grpc::ServerReader<v1::UploadImageRequest>* reader,
                     v1::UploadImageResponse* response) override {
    v1::UploadImageRequest chunk;
    uint64_t size = 0;
    while (reader->Read(&chunk)) {
      const std::lock_guard lock(state_.mutex);
      state_.chunks.push_back(chunk.data().size());
      size += chunk.data().size();
    }
    const std::lock_guard lock(state_.mutex);
    if (const Status status = state_.Enter(); !status.ok()) return status;
    response->set_image("images/" + std::to_string(size));
    response->set_size(size);
    return Status::OK;
  }

  Status CreateVm(ServerContext*, const v1::CreateVmRequest* request,
                  v1::CreateVmResponse* response) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = state_.Enter(); !status.ok()) return status;
    state_.last_create = *request;
    const std::string& name = request->vm_id();
    if (!IsName(name)) {
      return Refuse(StatusCode::INVALID_ARGUMENT, "vm_id '" + name + "' is not a name",
                    "INVALID_NAME");
    }
    if (state_.vms.count(name) != 0) {
      return Refuse(StatusCode::ALREADY_EXISTS, "there is a vm '" + name + "' already", "VM_EXISTS",
                    {{"vm", name}});
    }
    v1::Vm vm = request->vm();
    vm.set_name("vms/" + name);
    vm.set_state(v1::Vm::STATE_DEFINED);
    if (vm.backend() != v1::BACKEND_KVM) vm.set_backend(v1::BACKEND_SIM);
    if (vm.conversion_policy().mode() == v1::ConversionPolicy::MODE_UNSPECIFIED) {
      vm.mutable_conversion_policy()->set_mode(v1::ConversionPolicy::MODE_AUTO);
    }
    state_.vms[name] = vm;
    *response->mutable_vm() = vm;
    return Status::OK;
  }

  Status GetVm(ServerContext*, const v1::GetVmRequest* request,
               v1::GetVmResponse* response) override {
    return With(request->name(), [&](v1::Vm& vm) {
      *response->mutable_vm() = vm;
      return Status::OK;
    });
  }

  Status ListVms(ServerContext*, const v1::ListVmsRequest* request,
                 v1::ListVmsResponse* response) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = state_.Enter(); !status.ok()) return status;
    response->set_cursor("e-" + std::to_string(state_.events.size()) + request->page_token());
    auto next = state_.vms.upper_bound(request->page_token());
    while (next != state_.vms.end() && response->vms_size() < static_cast<int>(kVmsPerPage)) {
      *response->add_vms() = next->second;
      response->set_next_page_token(next->first);
      ++next;
    }
    if (next == state_.vms.end()) response->clear_next_page_token();
    return Status::OK;
  }

  Status StartVm(ServerContext*, const v1::StartVmRequest* request,
                 v1::StartVmResponse* response) override {
    return With(request->name(), [&](v1::Vm& vm) {
      if (vm.state() != v1::Vm::STATE_DEFINED) {
        const std::string name = Bare(vm.name());
        return Refuse(StatusCode::FAILED_PRECONDITION, "vm '" + name + "' is not DEFINED",
                      "WRONG_STATE", {{"vm", name}});
      }
      vm.set_state(v1::Vm::STATE_RUNNING);
      *response->mutable_vm() = vm;
      return Status::OK;
    });
  }

  Status StopVm(ServerContext*, const v1::StopVmRequest* request,
                v1::StopVmResponse* response) override {
    return With(request->name(), [&](v1::Vm& vm) {
      vm.set_state(v1::Vm::STATE_STOPPED);
      vm.set_stop_reason("STOP_REQUESTED");
      *response->mutable_vm() = vm;
      return Status::OK;
    });
  }

  Status DeleteVm(ServerContext*, const v1::DeleteVmRequest* request,
                  v1::DeleteVmResponse*) override {
    return With(request->name(), [&](v1::Vm& vm) {
      state_.vms.erase(Bare(vm.name()));
      return Status::OK;
    });
  }

  Status WaitVm(ServerContext* context, const v1::WaitVmRequest* request,
                v1::WaitVmResponse* response) override {
    std::unique_lock lock(state_.mutex);
    if (const Status status = state_.Enter(); !status.ok()) return status;
    const auto vm = state_.vms.find(Bare(request->name()));
    if (vm == state_.vms.end()) return NoSuchVm(Bare(request->name()));
    state_.WaitFor(lock, context, [&] { return vm->second.state() == v1::Vm::STATE_STOPPED; });
    *response->mutable_vm() = vm->second;
    return Status::OK;
  }

  Status StreamConsole(ServerContext* context, const v1::StreamConsoleRequest* request,
                       grpc::ServerWriter<v1::StreamConsoleResponse>* writer) override {
    std::unique_lock lock(state_.mutex);
    if (const Status status = state_.Enter(); !status.ok()) return status;
    const auto vm = state_.vms.find(Bare(request->name()));
    if (vm == state_.vms.end()) return NoSuchVm(Bare(request->name()));
    const bool follow = request->mode() == v1::StreamConsoleRequest::MODE_FOLLOW;
    size_t sent = 0;
    while (true) {
      const bool ended = !follow || vm->second.state() == v1::Vm::STATE_STOPPED;
      if (sent < state_.console.size()) {
        v1::StreamConsoleResponse chunk;
        chunk.set_offset(sent);
        chunk.set_data(state_.console.substr(sent));
        sent = state_.console.size();
        if (!writer->Write(chunk)) return Status::OK;
      }
      if (ended || state_.draining || context->IsCancelled()) return Status::OK;
      state_.WaitFor(lock, context, [&] {
        return sent < state_.console.size() || vm->second.state() == v1::Vm::STATE_STOPPED;
      });
    }
  }

 private:
  template <typename Function>
  Status With(const std::string& resource, Function function) {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = state_.Enter(); !status.ok()) return status;
    const auto vm = state_.vms.find(Bare(resource));
    const Status status = vm == state_.vms.end() ? NoSuchVm(Bare(resource)) : function(vm->second);
    state_.changed.notify_all();
    return status;
  }

  State& state_;
};

class FakeMemoryService : public v1::MemoryService::Service {
 public:
  explicit FakeMemoryService(State* state) : state_(*state) {}

  Status SetMemoryAttributes(ServerContext*, const v1::SetMemoryAttributesRequest* request,
                             v1::SetMemoryAttributesResponse* response) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = Check(request->vm()); !status.ok()) return status;
    state_.last_set = *request;
    for (const v1::MemoryRange& range : request->ranges()) {
      if (range.gpa() % kPage != 0 || range.size() % kPage != 0 || range.size() == 0) {
        return Refuse(StatusCode::INVALID_ARGUMENT,
                      "range " + std::to_string(range.gpa()) + " is not aligned to 4096",
                      "INVALID_RANGE");
      }
    }
    if (request->kind() == v1::MEMORY_KIND_SHARED &&
        request->content() == v1::SetMemoryAttributesRequest::CONTENT_PRESERVE) {
      return Refuse(StatusCode::PERMISSION_DENIED, "bytes of private memory are the guest's",
                    "PRESERVE_WOULD_DISCLOSE");
    }
    // Below 1 MiB everything is as it is asked to be.
    for (const v1::MemoryRange& range : request->ranges()) {
      if (range.gpa() >= (1 << 20)) *response->add_converted() = range;
    }
    response->set_conversion_id(response->converted().empty() ? 0 : 9);
    return Status::OK;
  }

  Status GetMemoryAttributes(ServerContext*, const v1::GetMemoryAttributesRequest* request,
                             grpc::ServerWriter<v1::GetMemoryAttributesResponse>* writer) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = Check(request->vm()); !status.ok()) return status;
    // The shared run is cut by the end of a chunk.
    v1::GetMemoryAttributesResponse chunk;
    Add(0, kSharedBegin, v1::MEMORY_KIND_PRIVATE, &chunk);
    Add(kSharedBegin, kPage, v1::MEMORY_KIND_SHARED, &chunk);
    writer->Write(chunk);
    chunk.Clear();
    Add(kSharedBegin + kPage, kSharedSize - kPage, v1::MEMORY_KIND_SHARED, &chunk);
    Add(kSharedBegin + kSharedSize, 8 << 20, v1::MEMORY_KIND_PRIVATE, &chunk);
    chunk.mutable_runs(1)->set_denied("x");
    writer->Write(chunk);
    return Status::OK;
  }

  Status Translate(ServerContext*, const v1::TranslateRequest* request,
                   v1::TranslateResponse* response) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = Check(request->vm()); !status.ok()) return status;
    const bool mapped = request->alias() != v1::MEMORY_KIND_SHARED;
    response->set_outcome(mapped ? v1::TranslateResponse::OUTCOME_MAPPED
                                 : v1::TranslateResponse::OUTCOME_NOT_MAPPED);
    response->set_kind(v1::MEMORY_KIND_PRIVATE);
    response->set_ept_pointer(0x10001e);
    v1::TranslateResponse::Step* step = response->add_steps();
    step->set_level(4);
    step->set_entry_hpa(0x100000);
    step->set_entry(mapped ? 0x101007 : 0);
    step->set_meaning(mapped ? "rwx table" : "not present");
    if (mapped) {
      response->set_hpa(0x40000000 + request->gpa());
      response->set_page_size(kPage);
      response->set_access("rw-");
    }
    return Status::OK;
  }

  Status ReadGuestMemory(ServerContext*, const v1::ReadGuestMemoryRequest* request,
                         v1::ReadGuestMemoryResponse* response) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = CheckShared(request->vm(), request->gpa(), request->size());
        !status.ok()) {
      return status;
    }
    response->set_data(state_.shared.substr(request->gpa() - kSharedBegin, request->size()));
    return Status::OK;
  }

  Status WriteGuestMemory(ServerContext*, const v1::WriteGuestMemoryRequest* request,
                          v1::WriteGuestMemoryResponse*) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = CheckShared(request->vm(), request->gpa(), request->data().size());
        !status.ok()) {
      return status;
    }
    state_.shared.replace(request->gpa() - kSharedBegin, request->data().size(), request->data());
    return Status::OK;
  }

 private:
  static void Add(uint64_t gpa, uint64_t size, v1::MemoryKind kind,
                  v1::GetMemoryAttributesResponse* chunk) {
    v1::MemoryRun* run = chunk->add_runs();
    run->set_gpa(gpa);
    run->set_size(size);
    run->set_kind(kind);
  }

  Status Check(const std::string& vm) {
    if (const Status status = state_.Enter(); !status.ok()) return status;
    return state_.vms.count(vm) == 0 ? NoSuchVm(vm) : Status::OK;
  }

  Status CheckShared(const std::string& vm, uint64_t gpa, uint64_t size) {
    if (const Status status = Check(vm); !status.ok()) return status;
    if (size == 0 || size > (1 << 20)) {
      return Refuse(StatusCode::INVALID_ARGUMENT, "size is not 1 to 1 MiB", "INVALID_RANGE");
    }
    if (gpa < kSharedBegin || gpa + size > kSharedBegin + kSharedSize) {
      return Refuse(StatusCode::PERMISSION_DENIED, "the range touches private memory",
                    "PRIVATE_MEMORY");
    }
    return Status::OK;
  }

  State& state_;
};

class FakeEventService : public v1::EventService::Service {
 public:
  explicit FakeEventService(State* state) : state_(*state) {}

  Status ListEvents(ServerContext*, const v1::ListEventsRequest* request,
                    v1::ListEventsResponse* response) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = state_.Enter(); !status.ok()) return status;
    size_t next = 0;
    if (const Status status = Find(request->start_cursor(), &next); !status.ok()) return status;
    for (; next < state_.events.size() &&
           response->events_size() < static_cast<int>(request->page_size());
         ++next) {
      const v1::Event& event = state_.events[next];
      if (Matches(request->filter(), event)) *response->add_events() = event;
    }
    response->set_next_cursor("e-" + std::to_string(next));
    return Status::OK;
  }

  Status WatchEvents(ServerContext* context, const v1::WatchEventsRequest* request,
                     grpc::ServerWriter<v1::WatchEventsResponse>* writer) override {
    std::unique_lock lock(state_.mutex);
    if (const Status status = state_.Enter(); !status.ok()) return status;
    size_t next = state_.events.size();
    if (!request->start_cursor().empty()) {
      if (const Status status = Find(request->start_cursor(), &next); !status.ok()) return status;
    }
    while (true) {
      for (; next < state_.events.size(); ++next) {
        v1::WatchEventsResponse batch;
        if (!Matches(request->filter(), state_.events[next])) continue;
        *batch.add_events() = state_.events[next];
        if (!writer->Write(batch)) return Status::OK;
      }
      if (state_.draining || context->IsCancelled()) return Status::OK;
      state_.WaitFor(lock, context, [&] { return next < state_.events.size(); });
    }
  }

  Status ListConversions(ServerContext*, const v1::ListConversionsRequest* request,
                         v1::ListConversionsResponse* response) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = state_.Enter(); !status.ok()) return status;
    if (state_.vms.count(request->vm()) == 0) return NoSuchVm(request->vm());
    response->mutable_conversions()->Add(state_.parked.begin(), state_.parked.end());
    return Status::OK;
  }

  Status ResolveConversion(ServerContext*, const v1::ResolveConversionRequest* request,
                           v1::ResolveConversionResponse* response) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = state_.Enter(); !status.ok()) return status;
    if (state_.vms.count(request->vm()) == 0) return NoSuchVm(request->vm());
    for (const uint64_t id : request->ids()) {
      const size_t erased =
          std::erase_if(state_.parked, [&](const auto& waiting) { return waiting.id() == id; });
      v1::ResolveConversionResponse::Result* result = response->add_results();
      result->set_id(id);
      result->set_outcome(erased == 0 ? v1::ResolveConversionResponse::OUTCOME_NOT_WAITING
                                      : v1::ResolveConversionResponse::OUTCOME_DECIDED);
    }
    return Status::OK;
  }

 private:
  static bool Matches(const v1::EventFilter& filter, const v1::Event& event) {
    return filter.vm().empty() || filter.vm() == event.vm();
  }

  Status Find(const std::string& cursor, size_t* next) {
    if (cursor.empty()) return Status::OK;
    if (cursor.rfind("e-", 0) != 0) {
      return Refuse(StatusCode::OUT_OF_RANGE, "cursor '" + cursor + "' is of another journal",
                    "CURSOR_OTHER_EPOCH", {{"oldest_cursor", "e-0"}});
    }
    *next = std::strtoull(cursor.c_str() + 2, nullptr, 10);
    return Status::OK;
  }

  State& state_;
};

class FakeHostService : public v1::HostService::Service {
 public:
  explicit FakeHostService(State* state) : state_(*state) {}

  Status GetHost(ServerContext*, const v1::GetHostRequest*,
                 v1::GetHostResponse* response) override {
    const std::lock_guard lock(state_.mutex);
    if (const Status status = state_.Enter(); !status.ok()) return status;
    v1::Host& host = *response->mutable_host();
    host.set_version("9.8.7");
    host.set_default_backend(v1::BACKEND_SIM);
    host.set_default_backend_reason("there is no /dev/kvm");
    host.add_backends(v1::BACKEND_SIM);
    v1::Host::Check* check = host.add_checks();
    check->set_name("/dev/kvm");
    check->set_result(v1::Host::Check::RESULT_MISSING);
    check->set_detail("No such file or directory; VMs run on sim");
    host.set_cpus(2);
    host.set_memory_bytes(25'125'978'112);
    host.set_vms(static_cast<uint32_t>(state_.vms.size()));
    host.set_max_vms(4096);
    host.set_max_vcpus(64);
    host.set_max_memory_bytes(uint64_t{64} << 30);
    host.set_metrics_address("127.0.0.1:9464");
    host.set_shared_bit(47);
    return Status::OK;
  }

 private:
  State& state_;
};

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
