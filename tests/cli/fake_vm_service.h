// VmService of the fake daemon: VMs with states, an image store that counts, one console.
#ifndef TWINROOT_TESTS_CLI_FAKE_VM_SERVICE_H_
#define TWINROOT_TESTS_CLI_FAKE_VM_SERVICE_H_

#include <cctype>
#include <map>
#include <mutex>
#include <string>

#include "tests/cli/fake_state.h"
#include "twinroot/v1/vm.grpc.pb.h"

namespace twinroot::cli {

inline constexpr size_t kVmsPerPage = 2;

class FakeVmService : public v1::VmService::Service {
 public:
  explicit FakeVmService(State* state) : state_(*state) {}

  Status UploadImage(ServerContext*, grpc::ServerReader<v1::UploadImageRequest>* reader,
                     v1::UploadImageResponse* response) override {
    v1::UploadImageRequest chunk;
    uint64_t size = 0, total = 0;
    while (reader->Read(&chunk)) {
      const std::lock_guard lock(state_.mutex);
      if (size == 0) total = chunk.total_size();
      state_.chunks.push_back(chunk.data().size());
      size += chunk.data().size();
    }
    const std::lock_guard lock(state_.mutex);
    if (const Status status = state_.Enter(); !status.ok()) return status;
    if (size != total) return Status(grpc::StatusCode::INVALID_ARGUMENT, "incomplete");
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
      state_.Note(*request);
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

  Status UpdateVm(ServerContext*, const v1::UpdateVmRequest* request,
                  v1::UpdateVmResponse* response) override {
    return With(request->vm().name(), [&](v1::Vm& vm) {
      state_.Note(*request);
      *response->mutable_vm() = vm;
      return Status::OK;
    });
  }

  Status PauseVm(ServerContext*, const v1::PauseVmRequest* request,
                 v1::PauseVmResponse* response) override {
    return With(request->name(), [&](v1::Vm& vm) {
      if (!request->etag().empty() && request->etag() != "good") {
        return Refuse(StatusCode::ABORTED, "the VM has changed", "ETAG_MISMATCH",
                      {{"vm", Bare(vm.name())}});
      }
      vm.set_state(v1::Vm::STATE_PAUSED);
      *response->mutable_vm() = vm;
      return Status::OK;
    });
  }

  Status ResumeVm(ServerContext*, const v1::ResumeVmRequest* request,
                  v1::ResumeVmResponse* response) override {
    return With(request->name(), [&](v1::Vm& vm) {
      state_.Note(*request);
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
      state_.Note(*request);
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

  // The guest says it again in upper case.
  Status WriteConsole(ServerContext*, const v1::WriteConsoleRequest* request,
                      v1::WriteConsoleResponse*) override {
    return With(request->name(), [&](v1::Vm&) {
      for (const char c : request->data()) {
        state_.console += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
      }
      return Status::OK;
    });
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

}  // namespace twinroot::cli

#endif  // TWINROOT_TESTS_CLI_FAKE_VM_SERVICE_H_
