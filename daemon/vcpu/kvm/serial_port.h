// A 16550A serial port: what the guest sends goes out at once, what is typed waits until the guest
// reads it. Thread-safe; `say` and `set_interrupt` are called in the order of what causes them,
// under the port's lock.
#ifndef TWINROOT_DAEMON_VCPU_KVM_SERIAL_PORT_H_
#define TWINROOT_DAEMON_VCPU_KVM_SERIAL_PORT_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string_view>

namespace twinroot::kvm {

class SerialPort {
 public:
  static constexpr uint16_t kRegisters = 8;
  static constexpr size_t kCapacity = size_t{64} << 10;

  SerialPort(std::function<void(std::string_view)> say, std::function<void(bool)> set_interrupt)
      : say_(std::move(say)), set_interrupt_(std::move(set_interrupt)) {}

  // By the guest; `offset` < kRegisters.
  uint8_t Read(uint16_t offset);
  void Write(uint16_t offset, uint8_t value);

  // False: it does not fit, and nothing was taken.
  bool Type(std::string_view bytes);

 private:
  // All of these hold mutex_.
  bool Looped() const;
  void Send(uint8_t value);
  uint8_t Receive();
  uint8_t Identify();
  uint8_t ModemStatus() const;
  bool Divides() const;
  void UpdateInterrupt();

  const std::function<void(std::string_view)> say_;
  const std::function<void(bool)> set_interrupt_;
  std::mutex mutex_;
  // Guarded by mutex_: the registers by their names in the 16550's data sheet.
  std::deque<uint8_t> received_;
  uint8_t interrupt_enable_ = 0;
  uint8_t fifo_control_ = 0;
  uint8_t line_control_ = 0;
  uint8_t modem_control_ = 0;
  uint8_t scratch_ = 0;
  uint8_t divisor_[2] = {1, 0};
  bool sent_pending_ = false;  // the transmitter became empty, and nobody has asked yet
  bool interrupt_ = false;
};

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_SERIAL_PORT_H_
