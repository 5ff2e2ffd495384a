#include "daemon/vcpu/kvm/pc.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/vcpu/kvm/kvm_abi.h"

namespace twinroot::kvm {

Pc::Pc(const KvmFd* vm, std::function<void(std::string_view)> say)
    : serial_(std::move(say), [vm](bool level) {
        kvm_irq_level line = {};
        line.irq = PcPorts::kSerialInterrupt;
        line.level = level;
        vm->Ioctl(KVM_IRQ_LINE, &line);
      }) {}

absl::StatusOr<std::unique_ptr<Pc>> Pc::Create(const KvmFd* vm,
                                               std::function<void(std::string_view)> say) {
  if (vm->Ioctl(KVM_CREATE_IRQCHIP) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("this host's KVM has no interrupt controllers, which an operating system "
                     "needs: KVM_CREATE_IRQCHIP: ",
                     std::strerror(errno)));
  }
  kvm_pit_config timer = {};
  timer.flags = KVM_PIT_SPEAKER_DUMMY;  // port 0x61, by which kernels read the timer
  if (vm->Ioctl(KVM_CREATE_PIT2, &timer) != 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "this host's KVM has no timer, which an operating system needs: KVM_CREATE_PIT2: ",
        std::strerror(errno)));
  }
  std::unique_ptr<Pc> pc(new Pc(vm, std::move(say)));
  pc->deadline_timer_ =
      vm->Ioctl(KVM_CHECK_EXTENSION, static_cast<unsigned long>(KVM_CAP_TSC_DEADLINE_TIMER)) > 0;
  return pc;
}

}  // namespace twinroot::kvm
