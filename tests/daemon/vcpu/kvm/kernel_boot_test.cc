// Kernels of a few instructions on /dev/kvm, as operating systems are booted: through the registry,
// the engine and the PC around them. Skipped by name where kvm cannot work.
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>

#include "daemon/host/vm_registry.h"
#include "daemon/host/wait_stopped.h"
#include "daemon/status_reason.h"
#include "tests/daemon/vcpu/kvm/test_kernels.h"

namespace twinroot::host {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr absl::Duration kPatience = absl::Seconds(30);

// Instructions that are the same in 32-bit and 64-bit mode.
const std::string kSayOk("\x66\xba\xf8\x03\xb0o\xee\xb0k\xee", 10);  // to the serial port
const std::string kPowerOff("\x66\xba\x04\x06\x66\xb8\x00\x34\x66\xef", 10);
const std::string kReset("\x66\xba\xf9\x0c\xb0\x06\xee", 7);
const std::string kSpin("\xeb\xfe", 2);
// Waits for a byte on the serial port and sends it back.
const std::string kEcho(
    "\x66\xba\xfd\x03"  // mov dx, 0x3fd
    "\xec\xa8\x01"      // in al, dx; test al, 1
    "\x74\xfb"          // jz: again
    "\x66\xba\xf8\x03"  // mov dx, 0x3f8
    "\xec\xee",         // in al, dx; out dx, al
    15);

class KernelBoot : public testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<VmRegistry>> registry = MakeVmRegistry({}, &journal_);
    ASSERT_TRUE(registry.ok()) << registry.status();
    registry_ = *std::move(registry);
    if (!registry_->capabilities().kvm_usable) {
      GTEST_SKIP() << "kvm: " << registry_->capabilities().reason;
    }
  }

  absl::Status Create(const std::string& image, uint32_t vcpus = 1, const std::string& initrd = "",
                      const std::string& program = "") {
    VmSpec spec;
    spec.name = "kernel";
    spec.memory_bytes = 32 * kMiB;
    spec.vcpus = vcpus;
    spec.image = std::make_shared<const std::string>(image);
    if (!initrd.empty()) spec.initrd = std::make_shared<const std::string>(initrd);
    spec.program = program;
    spec.backend = BackendKind::kKvm;
    absl::StatusOr<std::shared_ptr<Vm>> vm = registry_->Create(spec);
    if (vm.ok()) vm_ = *std::move(vm);
    return vm.status();
  }
  void Boot(const std::string& image, uint32_t vcpus = 1) {
    const absl::Status created = Create(image, vcpus);
    ASSERT_TRUE(created.ok()) << created;
    const absl::Status started = vm_->Start();
    ASSERT_TRUE(started.ok()) << started;
  }
  VmStatus End() {
    EXPECT_TRUE(host::WaitStopped(*vm_, kPatience));
    return vm_->status();
  }
  std::string Said() { return vm_->ReadConsole(0, 4096).data; }

  events::Journal journal_;
  std::unique_ptr<VmRegistry> registry_;
  std::shared_ptr<Vm> vm_;
};

TEST_F(KernelBoot, APvhKernelSpeaksAndPowersOff) {
  Boot(kvm::PvhKernel(kSayOk + kPowerOff + kSpin));
  const VmStatus status = End();
  EXPECT_EQ(status.exit_code, 0u) << status.stop_reason << ": " << status.stop_message;
  EXPECT_EQ(Said(), "ok");
  EXPECT_TRUE(vm_->Audit().ok());
}

TEST_F(KernelBoot, ABzImageSpeaksAndResets) {
  Boot(kvm::BzKernel(kSayOk + kReset + kSpin));
  const VmStatus status = End();
  EXPECT_EQ(status.stop_reason, "GUEST_RESET") << status.stop_message;
  EXPECT_FALSE(status.exit_code.has_value());
  EXPECT_EQ(Said(), "ok");
}

TEST_F(KernelBoot, WhatIsTypedReachesTheGuest) {
  EXPECT_EQ(kEcho.size(), 15u);
  Boot(kvm::PvhKernel(kEcho + kEcho + kPowerOff + kSpin));
  ASSERT_TRUE(vm_->WriteConsole("hi").ok());
  EXPECT_EQ(End().exit_code, 0u);
  EXPECT_EQ(Said(), "hi");
  EXPECT_EQ(ReasonOf(vm_->WriteConsole("x")), "WRONG_STATE");
}

TEST_F(KernelBoot, AGuestThatDoesNotReadIsNotTypedOnForEver) {
  Boot(kvm::PvhKernel(kSpin));
  const std::string line(4096, 'x');
  for (int i = 0; i < 16; ++i) EXPECT_TRUE(vm_->WriteConsole(line).ok());
  EXPECT_EQ(ReasonOf(vm_->WriteConsole("x")), "CONSOLE_INPUT_FULL");
  EXPECT_TRUE(vm_->Stop(vcpu::StopReason::kStopRequested).ok());
}

TEST_F(KernelBoot, OtherGuestsHaveNoSerialPort) {
  Boot(kSpin);  // a flat binary
  EXPECT_EQ(ReasonOf(vm_->WriteConsole("x")), "NO_CONSOLE_INPUT");
  EXPECT_TRUE(vm_->Stop(vcpu::StopReason::kStopRequested).ok());
}

TEST_F(KernelBoot, VcpusThatWereNotStartedPauseAndStop) {
  Boot(kvm::PvhKernel(kSayOk + kEcho + kPowerOff + kSpin), 8);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(vm_->Pause().ok());
    ASSERT_TRUE(vm_->Resume().ok());
  }
  ASSERT_TRUE(vm_->WriteConsole("!").ok());
  EXPECT_EQ(End().exit_code, 0u);
  EXPECT_EQ(Said(), "ok!");
}

TEST_F(KernelBoot, AProgramIsNotForKernelsNorAnInitrdForOthers) {
  EXPECT_NE(Create(kvm::PvhKernel(kSpin), 1, "", "program").message().find("a kernel takes none"),
            absl::string_view::npos);
  EXPECT_NE(Create(kSpin, 1, "initrd").message().find("only a kernel takes one"),
            absl::string_view::npos);
}

}  // namespace
}  // namespace twinroot::host
