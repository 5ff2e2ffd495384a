#include "daemon/vcpu/kvm/pc_ports.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "daemon/vcpu/kvm/acpi_tables.h"

namespace twinroot::kvm {
namespace {

using Effect = PcPorts::Effect;

class Ports : public testing::Test {
 protected:
  Effect Out(uint16_t port, const std::vector<uint8_t>& bytes) { return ports_.Out(port, bytes); }
  std::vector<uint8_t> In(uint16_t port, size_t size) {
    std::vector<uint8_t> bytes(size, 0x55);
    ports_.In(port, bytes);
    return bytes;
  }

  std::string said_;
  SerialPort serial_{[this](std::string_view bytes) { said_ += bytes; }, [](bool) {}};
  PcPorts ports_{&serial_};
};

TEST_F(Ports, TheSerialPortLiesWhereKernelsLookForIt) {
  EXPECT_EQ(Out(0x3f8, {'x'}), Effect::kNone);
  EXPECT_EQ(said_, "x");
  EXPECT_EQ(In(0x3fd, 1), std::vector<uint8_t>({0x60}));
}

TEST_F(Ports, EverythingElseReadsAsAllOnes) {
  EXPECT_EQ(In(0x2f8, 1), std::vector<uint8_t>({0xff}));
  EXPECT_EQ(In(0xcfc, 4), std::vector<uint8_t>({0xff, 0xff, 0xff, 0xff}));
  EXPECT_EQ(Out(0x80, {1}), Effect::kNone);
}

TEST_F(Ports, TheSleepTypeOfS5PowersOff) {
  EXPECT_EQ(In(kPortPm1Control, 2), std::vector<uint8_t>({1, 0}));
  EXPECT_EQ(Out(kPortPm1Control, {0, kSleepTypeOff << 2}), Effect::kNone);  // not enabled
  EXPECT_EQ(Out(kPortPm1Control, {0, 0x20 | 1 << 2}), Effect::kNone);       // another type
  EXPECT_EQ(Out(kPortPm1Control, {0, 0x20 | kSleepTypeOff << 2}), Effect::kPowerOff);
}

TEST_F(Ports, EventsOfPowerManagementAreEnabledAndNeverHappen) {
  Out(kPortPm1Event + 2, {0x20, 0x01});
  EXPECT_EQ(In(kPortPm1Event, 4), std::vector<uint8_t>({0, 0, 0x20, 0x01}));
}

TEST_F(Ports, ThereAreTwoWaysToReset) {
  EXPECT_EQ(Out(kPortReset, {kResetValue}), Effect::kReset);
  EXPECT_EQ(Out(kPortReset, {0x02}), Effect::kNone);  // prepares it only
  EXPECT_EQ(In(0x64, 1), std::vector<uint8_t>({0}));
  EXPECT_EQ(Out(0x64, {0xfe}), Effect::kReset);
}

TEST_F(Ports, AnAddressOnThePciBusIsNoReset) {
  EXPECT_EQ(Out(0xcf8, {0x00, 0x06, 0x00, 0x80}), Effect::kNone);
  EXPECT_EQ(Out(0xcf8, {0x00, 0x06}), Effect::kNone);
}

}  // namespace
}  // namespace twinroot::kvm
