#include "daemon/vcpu/kvm/serial_port.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace twinroot::kvm {
namespace {

// Offsets of registers, as drivers know them.
constexpr uint16_t kData = 0, kIer = 1, kIir = 2, kFcr = 2, kLcr = 3, kMcr = 4, kLsr = 5, kMsr = 6,
                   kScratch = 7;

class Serial : public testing::Test {
 protected:
  std::string said_;
  std::vector<bool> line_;
  SerialPort port_{[this](std::string_view bytes) { said_ += bytes; },
                   [this](bool level) { line_.push_back(level); }};
};

TEST_F(Serial, WhatTheGuestSendsIsSaidAtOnce) {
  for (const char c : {'h', 'i'}) {
    EXPECT_EQ(port_.Read(kLsr) & 0x60, 0x60);
    port_.Write(kData, static_cast<uint8_t>(c));
  }
  EXPECT_EQ(said_, "hi");
  EXPECT_TRUE(line_.empty());
}

TEST_F(Serial, WhatIsTypedWaitsAndInterrupts) {
  port_.Write(kMcr, 0x08);
  port_.Write(kIer, 0x01);
  EXPECT_EQ(port_.Read(kIir), 0x01);
  ASSERT_TRUE(port_.Type("ab"));
  EXPECT_EQ(line_, std::vector<bool>({true}));
  EXPECT_EQ(port_.Read(kIir), 0x04);
  EXPECT_EQ(port_.Read(kLsr), 0x61);
  EXPECT_EQ(port_.Read(kData), 'a');
  EXPECT_EQ(port_.Read(kData), 'b');
  EXPECT_EQ(port_.Read(kLsr), 0x60);
  EXPECT_EQ(line_, std::vector<bool>({true, false}));
}

TEST_F(Serial, NothingInterruptsUnlessTheLineIsConnected) {
  port_.Write(kIer, 0x03);
  ASSERT_TRUE(port_.Type("a"));
  EXPECT_TRUE(line_.empty());
  port_.Write(kMcr, 0x08);
  EXPECT_EQ(line_, std::vector<bool>({true}));
}

TEST_F(Serial, AnIdleTransmitterReportsOnceEachTimeItIsAsked) {
  port_.Write(kMcr, 0x08);
  port_.Write(kIer, 0x02);
  EXPECT_EQ(line_, std::vector<bool>({true}));
  EXPECT_EQ(port_.Read(kIir), 0x02);
  EXPECT_EQ(port_.Read(kIir), 0x01);
  port_.Write(kIer, 0x00);
  port_.Write(kIer, 0x02);
  EXPECT_EQ(port_.Read(kIir), 0x02);
  // Each byte makes it busy for an instant: an edge for controllers that see edges only.
  port_.Write(kData, 'x');
  line_.clear();
  port_.Write(kData, 'y');
  EXPECT_EQ(line_, std::vector<bool>({false, true}));
}

TEST_F(Serial, WhatDoesNotFitIsRefusedWhole) {
  ASSERT_TRUE(port_.Type(std::string(SerialPort::kCapacity - 1, 'x')));
  EXPECT_FALSE(port_.Type("ab"));
  EXPECT_TRUE(port_.Type("a"));
  EXPECT_FALSE(port_.Type("b"));
  port_.Read(kData);
  EXPECT_TRUE(port_.Type("b"));
}

TEST_F(Serial, ItLooksLikeA16550AToADriverThatProbes) {
  port_.Write(kScratch, 0xa5);
  EXPECT_EQ(port_.Read(kScratch), 0xa5);
  port_.Write(kIer, 0xff);
  EXPECT_EQ(port_.Read(kIer), 0x0f);
  port_.Write(kIer, 0x00);
  port_.Write(kFcr, 0x01);
  EXPECT_EQ(port_.Read(kIir) & 0xc0, 0xc0);
  port_.Write(kLcr, 0x80);
  port_.Write(kData, 0x0c);
  port_.Write(kIer, 0x01);
  EXPECT_EQ(port_.Read(kData), 0x0c);
  port_.Write(kLcr, 0x03);
  EXPECT_EQ(port_.Read(kIer), 0x00);
  EXPECT_EQ(said_, "");
  EXPECT_EQ(port_.Read(kMsr), 0xb0);
  // In the loop it hears itself, and its outputs are its inputs.
  port_.Write(kMcr, 0x1a);
  EXPECT_EQ(port_.Read(kMsr), 0x90);
  port_.Write(kData, 'z');
  EXPECT_EQ(port_.Read(kData), 'z');
  EXPECT_EQ(said_, "");
  ASSERT_TRUE(port_.Type("gone"));
  port_.Write(kFcr, 0x03);
  EXPECT_EQ(port_.Read(kLsr) & 1, 0);
}

}  // namespace
}  // namespace twinroot::kvm
