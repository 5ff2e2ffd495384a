#include "daemon/rpc/vm_service.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/host/backend_name.h"
#include "daemon/log_vm.h"
#include "daemon/reasons.h"
#include "daemon/rpc/checks.h"
#include "daemon/rpc/console_stream.h"
#include "daemon/rpc/convert.h"
#include "daemon/rpc/find_vm.h"
#include "daemon/rpc/image_upload.h"
#include "daemon/rpc/status.h"
#include "daemon/rpc/unary.h"
#include "daemon/rpc/vm_wait.h"
#include "daemon/status_reason.h"

namespace twinroot::rpc {
namespace {

constexpr uint32_t kDefaultPage = 100;
constexpr uint32_t kMaxPage = 1000;
constexpr size_t kMaxTyped = 4096;

}  // namespace

grpc::ServerReadReactor<v1::UploadImageRequest>* VmService::UploadImage(
    grpc::CallbackServerContext*, v1::UploadImageResponse* response) {
  return new ImageUpload(&context_->images, response);
}

grpc::ServerUnaryReactor* VmService::CreateVm(grpc::CallbackServerContext* call,
                                              const v1::CreateVmRequest* request,
                                              v1::CreateVmResponse* response) {
  auto create = [this, request, response] { return Create(*request, response); };
  if (request->validate_only()) return OnWorker(context_->calls, call, create);
  return OnceOnWorker(*context_, call, *request, response, create);
}

absl::Status VmService::Create(const v1::CreateVmRequest& request, v1::CreateVmResponse* response) {
  auto ticket = context_->admission.Enter();
  if (!ticket.ok()) return ticket.status();
  if (absl::Status status = CheckBareName("vm_id", request.vm_id()); !status.ok()) return status;
  if (!request.has_vm()) {
    return FieldError("vm", "say what the VM is: memory_bytes, vcpus, image or program",
                      reason::kMissingField);
  }
  auto spec = SpecOf(request.vm_id(), request.vm());
  if (!spec.ok()) return spec.status();
  for (const auto& [name, bytes] :
       {std::pair(&spec->image_name, &spec->image), std::pair(&spec->initrd_name, &spec->initrd)}) {
    if (name->empty()) continue;
    auto image = context_->images.Get(*name);
    if (!image.ok()) return image.status();
    *bytes = *std::move(image);
  }
  if (request.validate_only()) {
    auto checked = context_->registry->Check(*std::move(spec));
    if (!checked.ok()) return AboutVm(checked.status(), request.vm_id());
    ToProto(*checked, response->mutable_vm());
    return absl::OkStatus();
  }
  auto vm = context_->registry->Create(*std::move(spec));
  if (!vm.ok()) return AboutVm(vm.status(), request.vm_id());
  ToProto(**vm, response->mutable_vm());
  LogVm(spdlog::level::info, request.vm_id(), "defined, {} MiB, {} vCPUs, backend {}",
        response->vm().memory_bytes() >> 20, response->vm().vcpus(),
        host::NameOf((*vm)->backend()));
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* VmService::GetVm(grpc::CallbackServerContext* call,
                                           const v1::GetVmRequest* request,
                                           v1::GetVmResponse* response) {
  return Inline(call, [&] {
    auto vm = FindByResourceName(*context_->registry, "name", request->name());
    if (!vm.ok()) return vm.status();
    ToProto(**vm, response->mutable_vm());
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* VmService::ListVms(grpc::CallbackServerContext* call,
                                             const v1::ListVmsRequest* request,
                                             v1::ListVmsResponse* response) {
  return Inline(call, [&] { return List(*request, response); });
}

absl::Status VmService::List(const v1::ListVmsRequest& request, v1::ListVmsResponse* response) {
  auto page_size = CheckPageSize(request.page_size(), kDefaultPage, kMaxPage);
  if (!page_size.ok()) return page_size.status();
  auto after = ParsePageToken(request.page_token());
  if (!after.ok()) return after.status();
  // Before the VMs are looked at: what changes meanwhile is seen by who watches from here.
  response->set_cursor(context_->journal->Cursor());
  // One more than asked for tells whether another page follows.
  const auto vms = context_->registry->List(*after, *page_size + 1);
  for (size_t i = 0; i < std::min(vms.size(), *page_size); ++i) {
    ToProto(*vms[i], response->add_vms());
  }
  if (vms.size() > *page_size) {
    response->set_next_page_token(PageTokenAfter(vms[*page_size - 1]->spec().name));
  }
  return absl::OkStatus();
}

template <typename Request, typename Response, typename Change>
absl::Status VmService::ChangeState(const Request& request, Response* response, const char* what,
                                    const Change& change) {
  auto vm = FindByResourceName(*context_->registry, "name", request.name());
  if (!vm.ok()) return vm.status();
  auto if_version = ParseEtag("etag", request.etag());
  if (!if_version.ok()) return if_version.status();
  const std::string& name = (*vm)->spec().name;
  if (absl::Status status = change(**vm, *if_version); !status.ok()) {
    const std::string reason = ReasonOf(status);
    LogVm(spdlog::level::warn, {name, reason}, "not {}: {}", what, std::string(status.message()));
    return AboutVm(std::move(status), name);
  }
  ToProto(**vm, response->mutable_vm());
  LogVm(spdlog::level::info, name, "{}", what);
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* VmService::StartVm(grpc::CallbackServerContext* call,
                                             const v1::StartVmRequest* request,
                                             v1::StartVmResponse* response) {
  return OnceOnWorker(*context_, call, *request, response,
                      [this, request, response] { return Start(*request, response); });
}

absl::Status VmService::Start(const v1::StartVmRequest& request, v1::StartVmResponse* response) {
  auto ticket = context_->admission.Enter();
  if (!ticket.ok()) return ticket.status();
  return ChangeState(request, response, "started",
                     [](host::Vm& vm, host::IfVersion if_version) { return vm.Start(if_version); });
}

grpc::ServerUnaryReactor* VmService::PauseVm(grpc::CallbackServerContext* call,
                                             const v1::PauseVmRequest* request,
                                             v1::PauseVmResponse* response) {
  return OnWorker(context_->calls, call, [this, request, response] {
    return ChangeState(*request, response, "paused", [](host::Vm& vm, host::IfVersion if_version) {
      return vm.Pause(if_version);
    });
  });
}

grpc::ServerUnaryReactor* VmService::ResumeVm(grpc::CallbackServerContext* call,
                                              const v1::ResumeVmRequest* request,
                                              v1::ResumeVmResponse* response) {
  return OnWorker(context_->calls, call, [this, request, response] {
    return ChangeState(*request, response, "resumed", [](host::Vm& vm, host::IfVersion if_version) {
      return vm.Resume(if_version);
    });
  });
}

grpc::ServerUnaryReactor* VmService::StopVm(grpc::CallbackServerContext* call,
                                            const v1::StopVmRequest* request,
                                            v1::StopVmResponse* response) {
  return OnWorker(context_->calls, call, [this, request, response] {
    return ChangeState(*request, response, "stopped", [](host::Vm& vm, host::IfVersion if_version) {
      return vm.Stop(vcpu::StopReason::kStopRequested, if_version);
    });
  });
}

grpc::ServerUnaryReactor* VmService::DeleteVm(grpc::CallbackServerContext* call,
                                              const v1::DeleteVmRequest* request,
                                              v1::DeleteVmResponse* response) {
  return OnceOnWorker(*context_, call, *request, response,
                      [this, request] { return Delete(*request); });
}

absl::Status VmService::Delete(const v1::DeleteVmRequest& request) {
  auto name = BareNameOf("name", request.name());
  if (!name.ok()) return name.status();
  auto if_version = ParseEtag("etag", request.etag());
  if (!if_version.ok()) return if_version.status();
  if (absl::Status status = context_->registry->Delete(*name, *if_version); !status.ok()) {
    return AboutVm(std::move(status), *name);
  }
  LogVm(spdlog::level::info, *name, "deleted");
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* VmService::WaitVm(grpc::CallbackServerContext* call,
                                            const v1::WaitVmRequest* request,
                                            v1::WaitVmResponse* response) {
  auto vm = FindByResourceName(*context_->registry, "name", request->name());
  if (!vm.ok()) return Inline(call, [&] { return vm.status(); });
  auto* wait = new VmWait(context_, call, *std::move(vm), response);
  wait->Begin();
  return wait;
}

grpc::ServerWriteReactor<v1::StreamConsoleResponse>* VmService::StreamConsole(
    grpc::CallbackServerContext*, const v1::StreamConsoleRequest* request) {
  auto vm = FindByResourceName(*context_->registry, "name", request->name());
  if (!vm.ok()) return new FailedStream<v1::StreamConsoleResponse>(vm.status());
  if (!v1::StreamConsoleRequest::Mode_IsValid(request->mode())) {
    return new FailedStream<v1::StreamConsoleResponse>(
        FieldError("mode", absl::StrCat(request->mode(), " is no mode: use SNAPSHOT or FOLLOW"),
                   reason::kInvalidField));
  }
  auto* stream = new ConsoleStream(context_, *std::move(vm),
                                   request->mode() == v1::StreamConsoleRequest::MODE_FOLLOW
                                       ? ConsoleStream::Mode::kFollow
                                       : ConsoleStream::Mode::kSnapshot,
                                   request->offset());
  stream->Begin();
  return stream;
}

grpc::ServerUnaryReactor* VmService::WriteConsole(grpc::CallbackServerContext* call,
                                                  const v1::WriteConsoleRequest* request,
                                                  v1::WriteConsoleResponse* response) {
  return OnceOnWorker(*context_, call, *request, response, [this, request]() -> absl::Status {
    auto vm = FindByResourceName(*context_->registry, "name", request->name());
    if (!vm.ok()) return vm.status();
    if (request->data().empty()) {
      return FieldError("data", "say what to type: 1 byte to 4 KiB", reason::kMissingField);
    }
    if (request->data().size() > kMaxTyped) {
      return FieldError("data",
                        absl::StrCat(request->data().size(), " bytes; send at most ", kMaxTyped),
                        reason::kInvalidField);
    }
    return AboutVm((*vm)->WriteConsole(request->data()), (*vm)->spec().name);
  });
}

}  // namespace twinroot::rpc
