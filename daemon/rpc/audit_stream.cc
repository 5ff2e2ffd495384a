#include "daemon/rpc/audit_stream.h"

#include <utility>
#include <vector>

#include "daemon/log_vm.h"

namespace twinroot::rpc {

AuditStream::AuditStream(Context* context, std::shared_ptr<host::Vm> only)
    : Pump(&context->calls.workers()),
      context_(context),
      only_(std::move(only)),
      all_(only_ == nullptr) {}

std::shared_ptr<host::Vm> AuditStream::NextVm() {
  if (!all_) return std::exchange(only_, nullptr);
  std::vector<std::shared_ptr<host::Vm>> next = context_->registry->List(after_, 1);
  if (next.empty()) return nullptr;
  after_ = next.front()->spec().name;
  return std::move(next.front());
}

AuditStream::Next AuditStream::Produce(v1::AuditResponse* message, absl::Status*) {
  const std::shared_ptr<host::Vm> vm = NextVm();
  if (vm == nullptr) return Next::kEnd;
  const absl::Status verdict = vm->Audit();
  message->set_vm(vm->spec().name);
  if (verdict.ok()) {
    message->set_verdict(v1::AuditResponse::VERDICT_SOUND);
  } else {
    message->set_verdict(v1::AuditResponse::VERDICT_BROKEN);
    message->set_detail(std::string(verdict.message()));
    LogVm(spdlog::level::err, vm->spec().name, "audit: {}", message->detail());
    v1::Event event;
    event.set_vm(vm->spec().name);
    event.mutable_audit_failure()->set_detail(message->detail());
    context_->journal->Append(event);
  }
  return Next::kWrite;
}

}  // namespace twinroot::rpc
