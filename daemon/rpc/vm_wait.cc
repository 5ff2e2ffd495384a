#include "daemon/rpc/vm_wait.h"

#include <chrono>
#include <utility>

#include "daemon/rpc/convert.h"
#include "daemon/rpc/find_vm.h"
#include "daemon/rpc/status.h"

namespace twinroot::rpc {
namespace {

absl::Status Draining() {
  return absl::UnavailableError("the daemon is stopping, and this VM never ran: it is gone");
}

}  // namespace

VmWait::VmWait(Context* context, grpc::CallbackServerContext* call, std::shared_ptr<host::Vm> vm,
               v1::WaitVmResponse* response)
    : context_(context), call_(call), vm_(std::move(vm)), response_(response) {}

void VmWait::Begin() {
  drain_ = context_->on_drain.Add([this] { Drain(); });
  stopped_ = vm_->OnStopped([this](absl::Status status) { End(std::move(status)); });
  // Whoever drains sets the flag first and wakes then: one of the two reaches us.
  if (context_->draining) Drain();

  std::optional<absl::Status> end;
  {
    std::lock_guard lock(mutex_);
    begun_ = true;
    end = end_;
  }
  if (end.has_value()) Answer(*std::move(end));
}

void VmWait::Drain() {
  // What ran was stopped before; that word may still be on its way to us.
  End(vm_->status().state == host::VmState::kStopped ? absl::OkStatus() : Draining());
}

void VmWait::End(absl::Status status) {
  {
    std::lock_guard lock(mutex_);
    if (end_.has_value()) return;
    end_ = status;
    if (!begun_) return;
  }
  Answer(std::move(status));
}

void VmWait::Answer(absl::Status status) {
  if (status.ok()) ToProto(*vm_, response_->mutable_vm());
  // Nothing of this object after Finish: OnDone may come at once.
  Finish(ToGrpc(AboutVm(std::move(status), vm_->spec().name)));
}

void VmWait::OnCancel() {
  End(call_->deadline() <= std::chrono::system_clock::now()
          ? absl::DeadlineExceededError("the VM has not stopped within the call's deadline")
          : absl::CancelledError("the caller left"));
}

}  // namespace twinroot::rpc
