// The KVM machine alone: real guests of a few instructions on /dev/kvm, and in place of the engine
// a client that maps whatever is asked for, or parks it.
#include "daemon/vcpu/kvm/kvm_machine.h"

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "daemon/vcpu/kvm/userfault.h"

namespace twinroot::kvm {
namespace {

using mmu::MemoryKind;
using vcpu::StopReason;
using vcpu::VcpuIndex;
using vcpu::Verdict;

constexpr uint64_t kMemory = uint64_t{4} << 20;
constexpr auto kPatience = std::chrono::seconds(20);

class Client : public vcpu::MachineClient {
 public:
  Verdict OnEptViolation(VcpuIndex vcpu, const mmu::Fault& fault) override {
    const mmu::Gfn gfn = layout->GfnOf(fault.gpa);
    const MemoryKind kind = layout->KindOf(fault.gpa);
    {
      std::lock_guard lock(mutex);
      faults.push_back(fault);
      if (park_shared && kind == MemoryKind::kShared) {
        parked_vcpu = vcpu;
        changed.notify_all();
        return Verdict::kParked;
      }
    }
    const auto page = ram->Resolve(gfn, kind, mmu::Level::k4K);
    EXPECT_TRUE(page.ok());
    EXPECT_TRUE(
        machine->external(kind)->Set(gfn, mmu::Level::k4K, mmu::Access::All(), page->pfn).ok());
    return Verdict::kResume;
  }
  vcpu::MapGpaVerdict OnMapGpa(VcpuIndex vcpu, const vcpu::MapGpaCall& call) override {
    std::lock_guard lock(mutex);
    map_gpa = call;
    if (!park_map_gpa) return {Verdict::kResume, vcpu::MapGpaResult::kInvalid};
    parked_vcpu = vcpu;
    changed.notify_all();
    return {Verdict::kParked, vcpu::MapGpaResult::kOk};
  }
  void OnConsole(std::string_view bytes) override {
    std::lock_guard lock(mutex);
    console += bytes;
  }
  void OnExitCode(VcpuIndex, uint8_t code) override {
    std::lock_guard lock(mutex);
    exit_code = code;
    changed.notify_all();
  }
  void OnVcpuEnded(VcpuIndex) override {
    std::lock_guard lock(mutex);
    ++ended;
    changed.notify_all();
  }
  void OnFatal(StopReason reason, std::string text) override {
    std::lock_guard lock(mutex);
    fatal = reason;
    message = text;
    changed.notify_all();
  }

  bool Wait(const std::function<bool()>& what) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, kPatience, what);
  }

  memory::GuestRam* ram = nullptr;
  const mmu::GpaLayout* layout = nullptr;
  vcpu::Machine* machine = nullptr;
  bool park_shared = false, park_map_gpa = false;

  std::mutex mutex;
  std::condition_variable changed;
  std::vector<mmu::Fault> faults;
  std::optional<VcpuIndex> parked_vcpu;
  std::optional<vcpu::MapGpaCall> map_gpa;
  std::string console, message;
  std::optional<uint8_t> exit_code;
  std::optional<StopReason> fatal;
  int ended = 0;
};

class KvmMachineTest : public testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<KvmSystem>> system = KvmSystem::Open();
    if (!system.ok()) GTEST_SKIP() << system.status().message();
    if (absl::Status status = Userfault::Open().status(); !status.ok()) {
      GTEST_SKIP() << status.message();
    }
    system_ = *std::move(system);
  }

  // `code` is a flat binary, entered in ring 3 at 1 MiB.
  void Start(const std::string& code, uint32_t vcpus = 1, int cpl = 3) {
    const absl::StatusOr<mmu::GpaLayout> layout = mmu::GpaLayout::Create(
        std::min(system_->guest_maxphyaddr(), 48) - 1, 48, system_->guest_maxphyaddr());
    ASSERT_TRUE(layout.ok());
    layout_ = *layout;
    ram_ = *memory::GuestRam::Create(kMemory, &space_);
    KvmMachineConfig config;
    config.vcpus = vcpus;
    config.image = std::make_shared<const std::string>(code);
    config.cpl = cpl;
    absl::StatusOr<std::unique_ptr<vcpu::Machine>> machine =
        MakeKvmMachine(config, system_.get(), *layout_, ram_.get(), &client_);
    ASSERT_TRUE(machine.ok()) << machine.status();
    machine_ = *std::move(machine);
    client_.ram = ram_.get();
    client_.layout = &*layout_;
    client_.machine = machine_.get();
    const absl::Status started = machine_->Start();
    ASSERT_TRUE(started.ok()) << started;
  }
  void StopAndJoin() {
    const auto begin = std::chrono::steady_clock::now();
    machine_->RequestStop();
    machine_->Join();
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
  }

  std::unique_ptr<KvmSystem> system_;
  memory::HpaSpace space_;
  std::unique_ptr<memory::GuestRam> ram_;
  std::optional<mmu::GpaLayout> layout_;
  Client client_;
  std::unique_ptr<vcpu::Machine> machine_;
};

// mov al, imm; out 0xf4, al
std::string Exit(char code) { return std::string("\xb0") + code + "\xe6\xf4"; }
// mov rbx, 1 << 46 | 0x200000
const std::string kSharedAddress("\x48\xbb\x00\x00\x20\x00\x00\x40\x00\x00", 10);
const std::string kSpin = "\xeb\xfe";

TEST_F(KvmMachineTest, AGuestInRingThreeEndsWithItsExitCode) {
  Start(Exit(42));
  ASSERT_TRUE(client_.Wait([&] { return client_.exit_code.has_value(); })) << client_.message;
  EXPECT_EQ(*client_.exit_code, 42);
  StopAndJoin();
}

TEST_F(KvmMachineTest, AGuestInRingZeroRunsToo) {
  Start("\xf4", 1, 0);  // hlt
  ASSERT_TRUE(client_.Wait([&] { return client_.ended == 1 || client_.fatal.has_value(); }));
  EXPECT_EQ(client_.ended, 1) << client_.message;
  StopAndJoin();
}

TEST_F(KvmMachineTest, TheConsoleGetsBytesAndStrings) {
  // mov al,'h'; out 0xe9,al; lea rsi,[rip+text]; mov ecx,3; mov edx,0xe9; rep outsb; exit
  const std::string tail = Exit(0) + "ey!";
  std::string code("\xb0\x68\xe6\xe9\x48\x8d\x35", 7);
  const std::string rest("\xb9\x03\x00\x00\x00\xba\xe9\x00\x00\x00\xf3\x6e", 12);
  code += std::string("\x10\x00\x00\x00", 4);  // text lies 16 bytes behind
  Start(code + rest + tail);
  ASSERT_TRUE(client_.Wait([&] { return client_.exit_code.has_value(); })) << client_.message;
  EXPECT_EQ(client_.console, "hey!");
  StopAndJoin();
}

TEST_F(KvmMachineTest, AnAccessThroughTheSharedAliasIsReportedWithItsRawAddress) {
  Start(kSharedAddress + std::string("\xc6\x03\x55", 3) + Exit(0));  // mov byte [rbx], 0x55
  ASSERT_TRUE(client_.Wait([&] { return client_.exit_code.has_value(); })) << client_.message;
  StopAndJoin();
  int shared = 0;
  for (const mmu::Fault& fault : client_.faults) {
    if (layout_->KindOf(fault.gpa) != MemoryKind::kShared) continue;
    ++shared;
    EXPECT_EQ(layout_->GfnOf(fault.gpa), mmu::Gfn(0x200));
    EXPECT_TRUE(fault.access.write());
  }
  EXPECT_GE(shared, 1);
  EXPECT_EQ(ram_->slots()[0].shared_pages.data()[0x200000], std::byte{0x55});
  EXPECT_EQ(ram_->slots()[0].private_pages.data()[0x200000], std::byte{0});
}

TEST_F(KvmMachineTest, RingZeroReachesBothAliasesToo) {
  // mov byte [rbx], 0x55; mov al, [rbx]; out 0xf4, al
  Start(kSharedAddress + std::string("\xc6\x03\x55\x8a\x03\xe6\xf4", 7), 1, 0);
  ASSERT_TRUE(client_.Wait([&] { return client_.exit_code || client_.fatal; }));
  ASSERT_TRUE(client_.exit_code.has_value()) << client_.message;
  EXPECT_EQ(*client_.exit_code, 0x55);
  StopAndJoin();
  EXPECT_EQ(ram_->slots()[0].shared_pages.data()[0x200000], std::byte{0x55});
}

TEST_F(KvmMachineTest, AVcpuParkedInRingZeroCanBeStopped) {
  client_.park_shared = true;
  Start(kSharedAddress + std::string("\xc6\x03\x55", 3) + Exit(7), 1, 0);
  ASSERT_TRUE(client_.Wait([&] { return client_.parked_vcpu.has_value(); })) << client_.message;
  StopAndJoin();
  EXPECT_FALSE(client_.exit_code.has_value());
  EXPECT_EQ(ram_->slots()[0].shared_pages.data()[0x200000], std::byte{0});
}

TEST_F(KvmMachineTest, AnExceptionWithoutAHandlerIsATripleFault) {
  Start("\x0f\x0b");  // ud2
  ASSERT_TRUE(client_.Wait([&] { return client_.fatal.has_value(); }));
  EXPECT_EQ(*client_.fatal, StopReason::kTripleFault) << client_.message;
  StopAndJoin();
}

TEST_F(KvmMachineTest, AJumpToUnmappedMemoryIsATripleFault) {
  Start(std::string("\xb8\x00\x00\x00\x70\xff\xe0", 7));  // mov eax, 0x70000000; jmp rax
  ASSERT_TRUE(client_.Wait([&] { return client_.fatal.has_value(); }));
  EXPECT_EQ(*client_.fatal, StopReason::kTripleFault) << client_.message;
  StopAndJoin();
}

TEST_F(KvmMachineTest, ASpinningGuestStopsWhenAsked) {
  Start(kSpin, 2);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  StopAndJoin();
  EXPECT_FALSE(client_.fatal.has_value()) << client_.message;
}

TEST_F(KvmMachineTest, AParkedFaultWaitsUntilItIsResumed) {
  client_.park_shared = true;
  Start(kSharedAddress + std::string("\x8a\x03", 2) + Exit(7));  // mov al, [rbx]
  ASSERT_TRUE(client_.Wait([&] { return client_.parked_vcpu.has_value(); })) << client_.message;
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(client_.exit_code.has_value()) << "the guest must not move";
  {
    std::lock_guard lock(client_.mutex);
    client_.park_shared = false;
  }
  // An answer to a MapGPA is none to a fault.
  machine_->AnswerMapGpa(0, vcpu::MapGpaResult::kOk);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(client_.exit_code.has_value());
  machine_->ResumeFault(0);
  ASSERT_TRUE(client_.Wait([&] { return client_.exit_code.has_value(); })) << client_.message;
  EXPECT_EQ(*client_.exit_code, 7);
  StopAndJoin();
}

TEST_F(KvmMachineTest, AVcpuParkedInAFaultCanBeStopped) {
  client_.park_shared = true;
  Start(kSharedAddress + std::string("\x8a\x03", 2) + Exit(7));
  ASSERT_TRUE(client_.Wait([&] { return client_.parked_vcpu.has_value(); })) << client_.message;
  StopAndJoin();
  EXPECT_FALSE(client_.exit_code.has_value());
}

// mov eax,12; mov ebx,0x200000; mov ecx,3; mov edx,0x10; out 0xf8 (dx), eax; then exit with al
const std::string kMapGpaAndExitWithAl(
    "\xb8\x0c\x00\x00\x00\xbb\x00\x00\x20\x00\xb9\x03\x00\x00\x00\xba\x10\x00\x00\x00"
    "\xe7\xf8\xe6\xf4",
    24);

TEST_F(KvmMachineTest, TheDoorCarriesMapGpasRegistersAndResult) {
  Start(kMapGpaAndExitWithAl);
  ASSERT_TRUE(client_.Wait([&] { return client_.exit_code.has_value(); })) << client_.message;
  EXPECT_EQ(*client_.exit_code, static_cast<uint8_t>(-22));
  ASSERT_TRUE(client_.map_gpa.has_value());
  EXPECT_EQ(client_.map_gpa->gpa, 0x200000u);
  EXPECT_EQ(client_.map_gpa->pages, 3u);
  EXPECT_EQ(client_.map_gpa->attributes, 0x10u);
  StopAndJoin();
}

TEST_F(KvmMachineTest, AParkedMapGpaWaitsForItsAnswer) {
  client_.park_map_gpa = true;
  Start(kMapGpaAndExitWithAl);
  ASSERT_TRUE(client_.Wait([&] { return client_.parked_vcpu.has_value(); })) << client_.message;
  // A fault that is resumed late is no answer to a MapGPA.
  machine_->ResumeFault(0);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(client_.exit_code.has_value());
  machine_->AnswerMapGpa(0, vcpu::MapGpaResult::kDenied);
  ASSERT_TRUE(client_.Wait([&] { return client_.exit_code.has_value(); })) << client_.message;
  EXPECT_EQ(*client_.exit_code, static_cast<uint8_t>(-1));
  StopAndJoin();
}

TEST_F(KvmMachineTest, ARetryTellsTheGuestWhereToGoOn) {
  client_.park_map_gpa = true;
  // mov al, bh in the middle: bits 8 to 15 of the address in RBX.
  Start(kMapGpaAndExitWithAl.substr(0, 22) + "\x88\xf8\xe6\xf4");
  ASSERT_TRUE(client_.Wait([&] { return client_.parked_vcpu.has_value(); })) << client_.message;
  machine_->AnswerMapGpa(0, {vcpu::MapGpaResult::kRetry, 0x201000});
  ASSERT_TRUE(client_.Wait([&] { return client_.exit_code.has_value(); })) << client_.message;
  EXPECT_EQ(*client_.exit_code, 0x10);
  StopAndJoin();
}

TEST_F(KvmMachineTest, AVcpuParkedInMapGpaCanBeStopped) {
  client_.park_map_gpa = true;
  Start(kMapGpaAndExitWithAl);
  ASSERT_TRUE(client_.Wait([&] { return client_.parked_vcpu.has_value(); })) << client_.message;
  StopAndJoin();
  EXPECT_FALSE(client_.exit_code.has_value());
}

TEST_F(KvmMachineTest, PortsThatMeanNothingReadAllOnesAndIgnoreWrites) {
  // in al, 0x42; out 0x42, al; out 0xf4, al
  Start("\xe4\x42\xe6\x42\xe6\xf4");
  ASSERT_TRUE(client_.Wait([&] { return client_.exit_code.has_value(); })) << client_.message;
  EXPECT_EQ(*client_.exit_code, 0xff);
  StopAndJoin();
}

}  // namespace
}  // namespace twinroot::kvm
