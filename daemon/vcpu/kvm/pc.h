// The small PC around the vCPUs of an operating system: the interrupt controllers and the timer of
// the host's KVM, and the ports that the daemon serves. Thread-safe after Create.
#ifndef TWINROOT_DAEMON_VCPU_KVM_PC_H_
#define TWINROOT_DAEMON_VCPU_KVM_PC_H_

#include <functional>
#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "daemon/vcpu/kvm/kvm_api.h"
#include "daemon/vcpu/kvm/pc_ports.h"
#include "daemon/vcpu/kvm/serial_port.h"

namespace twinroot::kvm {

class Pc {
 public:
  // Before the VM has a vCPU; `vm` outlives the PC. `say` gets what the guest sends.
  static absl::StatusOr<std::unique_ptr<Pc>> Create(const KvmFd* vm,
                                                    std::function<void(std::string_view)> say);

  PcPorts& ports() { return ports_; }
  SerialPort& serial() { return serial_; }
  bool deadline_timer() const { return deadline_timer_; }

 private:
  Pc(const KvmFd* vm, std::function<void(std::string_view)> say);

  SerialPort serial_;
  PcPorts ports_{&serial_};
  bool deadline_timer_ = false;
};

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_PC_H_
