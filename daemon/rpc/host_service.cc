#include "daemon/rpc/host_service.h"

#include <unistd.h>

#include <thread>

#include "daemon/rpc/audit_stream.h"
#include "daemon/rpc/convert.h"
#include "daemon/rpc/find_vm.h"
#include "daemon/rpc/unary.h"

namespace twinroot::rpc {

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
    return absl::OkStatus();
  });
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
