#include "daemon/vcpu/kvm/pc_ports.h"

#include "daemon/vcpu/kvm/acpi_tables.h"

namespace twinroot::kvm {
namespace {

constexpr uint16_t kPortSerial = 0x3f8;
constexpr uint16_t kPortKeyboard = 0x64;  // of the 8042, which resets the processor, too
constexpr uint8_t kKeyboardReset = 0xfe;
constexpr uint8_t kResetBit = 0x04;  // of the reset port
constexpr uint16_t kPm1Enable = kPortPm1Event + 2;
// Of the upper byte of PM1 control: SLP_EN, SLP_TYP.
constexpr uint8_t kSleepEnable = 1 << 5;
constexpr uint8_t kSleepType = 0x1c;
constexpr int kSleepTypeShift = 2;
constexpr uint8_t kSciEnabled = 1;  // of its lower byte: ACPI is on, always

}  // namespace

PcPorts::Effect PcPorts::Out(uint16_t port, std::span<const uint8_t> data) {
  // Four bytes there address a PCI bus, which this PC has not.
  if (port <= kPortReset && port + data.size() > kPortReset && data.size() > 1) {
    return Effect::kNone;
  }
  Effect effect = Effect::kNone;
  for (const uint8_t value : data) {
    if (const Effect one = OutByte(port++, value); one != Effect::kNone) effect = one;
  }
  return effect;
}

void PcPorts::In(uint16_t port, std::span<uint8_t> data) {
  for (uint8_t& value : data) value = InByte(port++);
}

PcPorts::Effect PcPorts::OutByte(uint16_t port, uint8_t value) {
  if (port >= kPortSerial && port < kPortSerial + SerialPort::kRegisters) {
    serial_->Write(port - kPortSerial, value);
    return Effect::kNone;
  }
  switch (port) {
    case kPm1Enable:
    case kPm1Enable + 1:
      pm1_enable_[port - kPm1Enable] = value;
      return Effect::kNone;
    case kPortPm1Control + 1:
      return (value & kSleepEnable) && (value & kSleepType) >> kSleepTypeShift == kSleepTypeOff
                 ? Effect::kPowerOff
                 : Effect::kNone;
    case kPortReset:
      return (value & kResetBit) ? Effect::kReset : Effect::kNone;
    case kPortKeyboard:
      return value == kKeyboardReset ? Effect::kReset : Effect::kNone;
    default:
      return Effect::kNone;
  }
}

uint8_t PcPorts::InByte(uint16_t port) {
  if (port >= kPortSerial && port < kPortSerial + SerialPort::kRegisters) {
    return serial_->Read(port - kPortSerial);
  }
  switch (port) {
    case kPortPm1Event:
    case kPortPm1Event + 1:
      return 0;  // no event ever happens
    case kPm1Enable:
    case kPm1Enable + 1:
      return pm1_enable_[port - kPm1Enable];
    case kPortPm1Control:
      return kSciEnabled;
    case kPortPm1Control + 1:
    case kPortReset:
    case kPortKeyboard:  // nothing waits, and it takes commands
      return 0;
    default:
      return 0xff;
  }
}

}  // namespace twinroot::kvm
