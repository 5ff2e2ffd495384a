// A sim machine on tables written by hand: violations map a fresh zeroed page of the alias that was
// used, unless the test says otherwise.
#ifndef TWINROOT_TESTS_DAEMON_VCPU_SIM_SIM_TEST_BASE_H_
#define TWINROOT_TESTS_DAEMON_VCPU_SIM_SIM_TEST_BASE_H_

#include <memory>
#include <string>

#include "daemon/vcpu/program/compiler.h"
#include "daemon/vcpu/sim/sim_machine.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "tests/daemon/vcpu/sim/fake_client.h"
#include "tests/mmu/vmx/hand_made_tables.h"

namespace twinroot::sim {

inline constexpr int kSharedBit = 47;
inline constexpr uint64_t kSharedMask = uint64_t{1} << kSharedBit;

inline std::string CompileText(const std::string& text, uint32_t vcpus,
                               uint64_t memory_bytes = uint64_t{64} << 20) {
  v1::AccessProgram program;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &program)) << text;
  const absl::StatusOr<std::string> blob = program::Compile(program, vcpus, memory_bytes);
  EXPECT_TRUE(blob.ok()) << blob.status();
  return blob.ok() ? *blob : std::string();
}

class SimTest : public ::testing::Test {
 protected:
  SimTest() {
    client_.on_violation = [this](vcpu::VcpuIndex, const mmu::Fault& fault) {
      MapFresh(fault.gpa);
      return vcpu::Verdict::kResume;
    };
  }

  uint64_t RootOf(uint64_t gpa) const { return gpa & kSharedMask ? shared_root_ : private_root_; }
  void MapFresh(mmu::Gpa gpa) {
    const uint64_t page = gpa.value & ~uint64_t{0xFFF};
    memory_.Map4K(RootOf(page), page, memory_.NewPage());
  }

  // The machine of one program text; not started.
  SimMachine& Make(const std::string& text, uint32_t vcpus = 1) {
    SimConfig config;
    config.vcpus = vcpus;
    config.program = CompileText(text, vcpus);
    machine_ = std::make_unique<SimMachine>(config, &memory_, &client_);
    machine_->LoadRoots(mmu::EptPointer(private_root_ | 0x1E), mmu::EptPointer(shared_root_ | 0x1E),
                        kSharedBit);
    return *machine_;
  }
  SimMachine& Start(const std::string& text, uint32_t vcpus = 1) {
    SimMachine& machine = Make(text, vcpus);
    const absl::Status status = machine.Start();
    EXPECT_TRUE(status.ok()) << status;
    return machine;
  }
  // Runs until all vCPUs have ended, or an exit code or a fatal error came; then stops.
  FakeClient::Notes Run(const std::string& text, uint32_t vcpus = 1) {
    SimMachine& machine = Start(text, vcpus);
    EXPECT_TRUE(client_.WaitForEnd(vcpus));
    machine.RequestStop();
    machine.Join();
    return client_.notes();
  }

  mmu::vmx::HandMadeTables memory_;
  const uint64_t private_root_ = memory_.NewPage();
  const uint64_t shared_root_ = memory_.NewPage();
  FakeClient client_;
  std::unique_ptr<SimMachine> machine_;  // ends first
};

}  // namespace twinroot::sim

#endif  // TWINROOT_TESTS_DAEMON_VCPU_SIM_SIM_TEST_BASE_H_
