// The ports of the small PC that an operating system finds: its serial console, how it powers off
// and resets. Interrupt controllers and timers are in the host kernel. Everything else reads as all
// ones. Thread-safe.
#ifndef TWINROOT_DAEMON_VCPU_KVM_PC_PORTS_H_
#define TWINROOT_DAEMON_VCPU_KVM_PC_PORTS_H_

#include <atomic>
#include <cstdint>
#include <span>

#include "daemon/vcpu/kvm/serial_port.h"

namespace twinroot::kvm {

class PcPorts {
 public:
  static constexpr uint32_t kSerialInterrupt = 4;

  enum class Effect : uint8_t { kNone, kPowerOff, kReset };

  // `serial` outlives this object.
  explicit PcPorts(SerialPort* serial) : serial_(serial) {}

  // One access of 1, 2 or 4 bytes.
  Effect Out(uint16_t port, std::span<const uint8_t> data);
  void In(uint16_t port, std::span<uint8_t> data);

 private:
  Effect OutByte(uint16_t port, uint8_t value);
  uint8_t InByte(uint16_t port);

  SerialPort* const serial_;
  std::atomic<uint8_t> pm1_enable_[2] = {};
};

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_PC_PORTS_H_
