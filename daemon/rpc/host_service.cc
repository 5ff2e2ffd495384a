#include "daemon/rpc/host_service.h"

#include <unistd.h>

#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/reasons.h"
#include "daemon/rpc/audit_stream.h"
#include "daemon/rpc/checks.h"
#include "daemon/rpc/convert.h"
#include "daemon/rpc/find_vm.h"
#include "daemon/rpc/status.h"
#include "daemon/rpc/unary.h"
#include "spdlog/spdlog.h"

namespace twinroot::rpc {
namespace {

constexpr size_t kMaxMetrics = size_t{3} << 20;

v1::Host::Capabilities CapabilitiesOf(host::BackendKind backend) {
  using C = v1::Host::Capabilities;
  C all;
  all.set_backend(ToProto(backend));
  all.add_capabilities(C::CAPABILITY_PROGRAMS);
  if (backend != host::BackendKind::kSim) {
    all.add_capabilities(C::CAPABILITY_IMAGES);
    return all;
  }
  for (const C::Capability capability :
       {C::CAPABILITY_DENY_READ, C::CAPABILITY_DENY_WRITE, C::CAPABILITY_DENY_FETCH,
        C::CAPABILITY_DIRTY_LOG, C::CAPABILITY_MEMSLOTS, C::CAPABILITY_AGE_PAGES,
        C::CAPABILITY_NX_HUGE_PAGES, C::CAPABILITY_PAGES_2M}) {
    all.add_capabilities(capability);
  }
  return all;
}

uint32_t ActiveVms(const host::VmRegistry& registry) {
  constexpr size_t kAtOnce = 256;
  uint32_t active = 0;
  std::string after;
  for (;;) {
    const auto vms = registry.List(after, kAtOnce);
    if (vms.empty()) return active;
    for (const auto& vm : vms) {
      const host::VmState state = vm->status().state;
      active += state == host::VmState::kRunning || state == host::VmState::kPaused;
    }
    after = vms.back()->spec().name;
  }
}

}  // namespace

grpc::ServerUnaryReactor* HostService::GetHost(grpc::CallbackServerContext* call,
                                               const v1::GetHostRequest*,
                                               v1::GetHostResponse* response) {
  return Inline(call, [&] {
    const host::HostCapabilities& capabilities = context_->registry->capabilities();
    v1::Host* host = response->mutable_host();
    host->set_version(context_->version);
    host->set_default_backend(ToProto(context_->registry->default_backend()));
    host->set_default_backend_reason(capabilities.reason);
    if (capabilities.kvm_usable) host->add_backends(v1::BACKEND_KVM);
    if (capabilities.native_usable) host->add_backends(v1::BACKEND_KVM_NATIVE);
    host->add_backends(v1::BACKEND_SIM);
    for (const host::HostCheck& check : capabilities.checks) ToProto(check, host->add_checks());
    host->set_cpus(std::thread::hardware_concurrency());
    host->set_memory_bytes(static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) *
                           static_cast<uint64_t>(sysconf(_SC_PAGESIZE)));
    host->set_vms(static_cast<uint32_t>(context_->registry->size()));
    host->set_max_vms(context_->max_vms);
    host->set_max_vcpus(host::kMaxVcpus);
    host->set_max_memory_bytes(host::kMaxMemoryBytes);
    host->set_metrics_address(context_->metrics_address);
    host->set_shared_bit(static_cast<uint32_t>(context_->registry->shared_bit()));
    host->set_admission(context_->admission.draining() ? v1::Host::ADMISSION_DRAINING
                                                       : v1::Host::ADMISSION_OPEN);
    if (capabilities.kvm_usable)
      *host->add_capabilities() = CapabilitiesOf(host::BackendKind::kKvm);
    if (capabilities.native_usable)
      *host->add_capabilities() = CapabilitiesOf(host::BackendKind::kKvmNative);
    *host->add_capabilities() = CapabilitiesOf(host::BackendKind::kSim);
    host->set_max_ranges(kMaxRanges);
    host->set_max_transfer_bytes(kMaxTransfer);
    host->set_max_image_bytes(ImageStore::kMaxImage);
    host->set_max_image_chunk_bytes(ImageStore::kMaxChunk);
    host->set_max_added_memslots(host::kMaxAddedMemslots);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* HostService::GetMetrics(grpc::CallbackServerContext* call,
                                                  const v1::GetMetricsRequest*,
                                                  v1::GetMetricsResponse* response) {
  return OnWorker(context_->calls, call, [this, response] {
    std::string text = context_->metrics_text();
    if (text.size() > kMaxMetrics) {
      const size_t end = text.rfind('\n', kMaxMetrics - 1) + 1;
      response->set_omitted_bytes(text.size() - end);
      text.resize(end);
    }
    response->set_text(std::move(text));
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* HostService::Drain(grpc::CallbackServerContext* call,
                                             const v1::DrainRequest* request,
                                             v1::DrainResponse* response) {
  return OnWorker(context_->calls, call,
                  [this, request, response] { return SetAdmission(*request, response); });
}

absl::Status HostService::SetAdmission(const v1::DrainRequest& request,
                                       v1::DrainResponse* response) {
  if (request.admission() == v1::Host::ADMISSION_UNSPECIFIED) {
    return FieldError("admission", "say DRAINING, or OPEN to take VMs again",
                      reason::kMissingField);
  }
  if (!v1::Host::Admission_IsValid(request.admission())) {
    return FieldError("admission",
                      absl::StrCat(request.admission(), " is no choice: use DRAINING or OPEN"),
                      reason::kInvalidField);
  }
  const bool draining = request.admission() == v1::Host::ADMISSION_DRAINING;
  context_->admission.Set(draining, [this](bool now) {
    context_->set_serving(!now);
    context_->on_admission(now);
    spdlog::info(now ? "draining: no new VMs" : "open: new VMs are taken");
  });
  response->set_active_vms(ActiveVms(*context_->registry));
  return absl::OkStatus();
}

grpc::ServerWriteReactor<v1::AuditResponse>* HostService::Audit(grpc::CallbackServerContext*,
                                                                const v1::AuditRequest* request) {
  std::shared_ptr<host::Vm> only;
  if (!request->vm().empty()) {
    auto vm = FindByBareName(*context_->registry, "vm", request->vm());
    if (!vm.ok()) return new FailedStream<v1::AuditResponse>(vm.status());
    only = *std::move(vm);
  }
  auto* stream = new AuditStream(context_, std::move(only));
  stream->Wake();
  return stream;
}

}  // namespace twinroot::rpc
