#include "daemon/vcpu/kvm/serial_port.h"

namespace twinroot::kvm {
namespace {

// Registers.
constexpr uint16_t kData = 0, kInterruptEnable = 1, kIdentifyOrFifo = 2, kLineControl = 3,
                   kModemControl = 4, kLineStatus = 5, kModemStatus = 6, kScratch = 7;
// Their bits.
constexpr uint8_t kEnableReceived = 1 << 0, kEnableSent = 1 << 1, kEnableMask = 0x0f;
constexpr uint8_t kFifoEnable = 1 << 0, kFifoClearReceived = 1 << 1;
constexpr uint8_t kIdNone = 0x01, kIdSent = 0x02, kIdReceived = 0x04, kIdFifo = 0xc0;
constexpr uint8_t kDivisorLatch = 1 << 7;
constexpr uint8_t kDtr = 1 << 0, kRts = 1 << 1, kOut1 = 1 << 2, kOut2 = 1 << 3, kLoop = 1 << 4;
constexpr uint8_t kDataReady = 1 << 0, kTransmitterEmpty = 0x60;
constexpr uint8_t kCts = 1 << 4, kDsr = 1 << 5, kRing = 1 << 6, kCarrier = 1 << 7;

}  // namespace

bool SerialPort::Looped() const { return modem_control_ & kLoop; }
bool SerialPort::Divides() const { return line_control_ & kDivisorLatch; }

uint8_t SerialPort::Read(uint16_t offset) {
  const std::lock_guard lock(mutex_);
  if (offset <= kInterruptEnable && Divides()) return divisor_[offset];
  switch (offset) {
    case kData:
      return Receive();
    case kInterruptEnable:
      return interrupt_enable_;
    case kIdentifyOrFifo:
      return Identify();
    case kLineControl:
      return line_control_;
    case kModemControl:
      return modem_control_;
    case kLineStatus:
      return static_cast<uint8_t>(kTransmitterEmpty | (received_.empty() ? 0 : kDataReady));
    case kModemStatus:
      return ModemStatus();
    case kScratch:
      return scratch_;
    default:
      return 0xff;
  }
}

void SerialPort::Write(uint16_t offset, uint8_t value) {
  const std::lock_guard lock(mutex_);
  if (offset <= kInterruptEnable && Divides()) {
    divisor_[offset] = value;
    return;
  }
  switch (offset) {
    case kData:
      Send(value);
      break;
    case kInterruptEnable:
      // Drivers test that asking for it anew makes an idle transmitter report again.
      if ((value & kEnableSent) && !(interrupt_enable_ & kEnableSent)) sent_pending_ = true;
      interrupt_enable_ = value & kEnableMask;
      break;
    case kIdentifyOrFifo:
      fifo_control_ = value;
      if (value & kFifoClearReceived) received_.clear();
      break;
    case kLineControl:
      line_control_ = value;
      break;
    case kModemControl:
      modem_control_ = value;
      break;
    case kScratch:
      scratch_ = value;
      break;
    default:
      break;
  }
  UpdateInterrupt();
}

bool SerialPort::Type(std::string_view bytes) {
  const std::lock_guard lock(mutex_);
  if (received_.size() + bytes.size() > kCapacity) return false;
  received_.insert(received_.end(), bytes.begin(), bytes.end());
  UpdateInterrupt();
  return true;
}

void SerialPort::Send(uint8_t value) {
  if (Looped()) {
    received_.push_back(value);
  } else {
    const char byte = static_cast<char>(value);
    say_(std::string_view(&byte, 1));
  }
  // For an instant there was something to send.
  sent_pending_ = false;
  UpdateInterrupt();
  sent_pending_ = true;
}

uint8_t SerialPort::Receive() {
  if (received_.empty()) return 0;
  const uint8_t value = received_.front();
  received_.pop_front();
  UpdateInterrupt();
  return value;
}

uint8_t SerialPort::Identify() {
  const uint8_t fifo = (fifo_control_ & kFifoEnable) ? kIdFifo : 0;
  if ((interrupt_enable_ & kEnableReceived) && !received_.empty()) return kIdReceived | fifo;
  if ((interrupt_enable_ & kEnableSent) && sent_pending_) {
    sent_pending_ = false;
    UpdateInterrupt();
    return kIdSent | fifo;
  }
  return kIdNone | fifo;
}

uint8_t SerialPort::ModemStatus() const {
  if (!Looped()) return kCarrier | kDsr | kCts;
  uint8_t status = 0;
  if (modem_control_ & kRts) status |= kCts;
  if (modem_control_ & kDtr) status |= kDsr;
  if (modem_control_ & kOut1) status |= kRing;
  if (modem_control_ & kOut2) status |= kCarrier;
  return status;
}

void SerialPort::UpdateInterrupt() {
  const bool asked = ((interrupt_enable_ & kEnableReceived) && !received_.empty()) ||
                     ((interrupt_enable_ & kEnableSent) && sent_pending_);
  // On a PC the second output connects the line to the interrupt controller.
  const bool interrupt = asked && (modem_control_ & kOut2) && !Looped();
  if (interrupt == interrupt_) return;
  interrupt_ = interrupt;
  set_interrupt_(interrupt);
}

}  // namespace twinroot::kvm
