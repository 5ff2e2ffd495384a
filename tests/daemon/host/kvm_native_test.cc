// VMs of kvm-native on the fake kernel: private memory that only the kernel has.
#include <gmock/gmock.h>

#include <atomic>
#include <cerrno>

#include "daemon/reasons.h"
#include "daemon/vcpu/kvm/kvm_abi.h"
#include "tests/daemon/host/vm_fixture.h"
#include "tests/fakes/kvm/fake_kvm.h"

namespace twinroot::host {
namespace {

using mmu::Gfn;
using mmu::GfnRange;
using mmu::MemoryKind;
using testing::HasSubstr;

constexpr uint64_t kPage = 4096;
constexpr char kWrites[] = R"(vcpus {
  steps { loop { count: 16 steps { write { gpa: 0x400000 stride: 4096 value: 7 } } } } })";
constexpr char kConverts[] = R"(vcpus {
  steps { loop { count: 16 steps { write { gpa: 0x400000 stride: 4096 value: 7 } } } }
  steps { map_gpa { gpa: 0x400000 pages: 8 kind: MEMORY_KIND_SHARED } }
  steps { expect { value: 0 } }
  steps { loop { count: 8 steps { read { gpa: 0x400000 alias: MEMORY_KIND_SHARED stride: 4096 expect: 0 } } } }
  steps { map_gpa { gpa: 0x400000 pages: 4 kind: MEMORY_KIND_PRIVATE } }
  steps { loop { count: 4 steps { read { gpa: 0x400000 stride: 4096 expect: 0 } } } }
  steps { loop { count: 8 steps { read { gpa: 0x408000 stride: 4096 expect: 7 } } } } })";

class KvmNative : public VmFixture {
 protected:
  void SetUp() override { Open(&kvm_); }
  void TearDown() override {  // before the kernel that they run on
    vm_.reset();
    registry_.reset();
  }
  void Open(kvm::KvmApi* kvm) {
    RegistryOptions options;
    options.kvm = kvm;
    auto registry = MakeVmRegistry(options, &journal_);
    ASSERT_TRUE(registry.ok()) << registry.status();
    registry_ = *std::move(registry);
    if (kvm == &kvm_ && !registry_->capabilities().native_usable) {
      GTEST_SKIP() << "kvm-native of the fake kernel: " << registry_->capabilities().native_reason;
    }
  }
  void MakeNative(
      const std::string& program, uint32_t vcpus = 1,
      const std::function<void(VmSpec&)>& change = [](VmSpec&) {}) {
    Make(program, vcpus, BackendKind::kKvmNative, change);
  }
  uint64_t Conversions() {
    uint64_t conversions = 0;
    v1::EventFilter all;
    for (uint64_t position = 0;;) {
      const auto page = journal_.Read(position, 1000, events::Filter(all));
      for (const auto& event : page.events) {
        conversions += event->kind() == v1::Event::kConversion;
      }
      if (page.next == position) return conversions;
      position = page.next;
    }
  }
  bool Attribute(Gfn gfn, MemoryKind kind) {
    const auto runs = vm_->Attributes(GfnRange{gfn, 1});
    return runs.ok() && runs->size() == 1 && runs->front().kind == kind;
  }

  kvm::fake::FakeKvm kvm_;
};

TEST_F(KvmNative, IsRefusedWhereKvmOnlyPretendsToHaveGuestMemfd) {
  kvm::fake::FakeKvm::Options options;
  options.protected_vms = false;
  kvm::fake::FakeKvm pretender(options);
  registry_.reset();
  Open(&pretender);
  EXPECT_TRUE(registry_->capabilities().kvm_usable);
  EXPECT_FALSE(registry_->capabilities().native_usable);
  EXPECT_THAT(registry_->capabilities().native_reason, HasSubstr("software-protected VMs"));
  VmSpec spec;
  spec.name = "refused";
  spec.memory_bytes = uint64_t{2} << 20;
  spec.vcpus = 1;
  spec.backend = BackendKind::kKvmNative;
  spec.image = std::make_shared<const std::string>("\xf4");
  const auto refused = registry_->Create(spec);
  EXPECT_EQ(ReasonOf(refused.status()), reason::kBackendUnavailable);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("kvm-native cannot work"));
  RegistryOptions by_name;
  by_name.kvm = &pretender;
  by_name.default_backend = BackendKind::kKvmNative;
  EXPECT_EQ(ReasonOf(MakeVmRegistry(by_name, &journal_).status()), reason::kBackendUnavailable);
  registry_.reset();
}

TEST_F(KvmNative, AutoTakesKvmAndTheNameTakesNative) {
  EXPECT_EQ(registry_->default_backend(), BackendKind::kKvm);
  RegistryOptions by_name;
  by_name.kvm = &kvm_;
  by_name.default_backend = BackendKind::kKvmNative;
  auto named = MakeVmRegistry(by_name, &journal_);
  ASSERT_TRUE(named.ok()) << named.status();
  EXPECT_EQ((*named)->default_backend(), BackendKind::kKvmNative);
}

TEST_F(KvmNative, NoPageIsBackedTwice) {
  MakeNative(kConverts);
  // The VM by which the registry has proved the backend may still be going.
  Eventually([this] { return kvm_.private_bytes() == 0; });
  Start();
  Finish();
  // Eight were shared, four came back empty and were read: four shared ones are left, which the
  // guest has touched.
  EXPECT_EQ(vm_->counters().shared_bytes_allocated, 4 * kPage);
  EXPECT_TRUE(Attribute(Gfn(0x403), MemoryKind::kPrivate));
  EXPECT_TRUE(Attribute(Gfn(0x404), MemoryKind::kShared));
  const uint64_t with_twelve = kvm_.private_bytes();
  ASSERT_TRUE(vm_->Convert({{Gfn(0x400), 16}}, MemoryKind::kShared, mmu::Content::kDestroy).ok());
  EXPECT_EQ(kvm_.private_bytes(), with_twelve - 12 * kPage);
  ASSERT_TRUE(vm_->Convert({{Gfn(0x400), 16}}, MemoryKind::kPrivate, mmu::Content::kDestroy).ok());
  EXPECT_EQ(vm_->counters().shared_bytes_allocated, 0u);
}

TEST_F(KvmNative, WhatIsLoadedLiesInTheKernelOnly) {
  MakeNative(kWrites);
  Start();
  Finish();
  EXPECT_GT(kvm_.private_bytes(), 16 * kPage);  // the interpreter and its tables too
  // All of its private bytes are leaves of the engine; the daemon's own file is empty.
  const VmCounters counters = vm_->counters();
  const uint64_t mapped =
      counters.memory.leaves[0][0] * kPage + counters.memory.leaves[0][1] * 512 * kPage;
  EXPECT_EQ(counters.private_bytes_allocated, mapped);
  EXPECT_LE(kvm_.private_bytes(), mapped);
}

TEST_F(KvmNative, FaultsThatLostARaceAreMadeAgainAndConvertNothing) {
  MakeNative(kWrites);
  Start();
  kvm_.RaceNext(200);
  Finish();
  EXPECT_EQ(Conversions(), 0u);
  EXPECT_TRUE(Attribute(Gfn(0x400), MemoryKind::kPrivate));
}

TEST_F(KvmNative, AFaultThatIsRefusedForEverStopsTheVmWithTheAddress) {
  MakeNative(R"(vcpus { steps { loop { count: 1000000
    steps { write { gpa: 0x400000 value: 1 } } } } })");
  Start();
  Eventually([this] { return vm_->counters().memory.leaves[0][1] > 1; });
  kvm_.RaceNext(1 << 30);
  Eventually([this] { return vm_->status().state == VmState::kStopped; });
  EXPECT_EQ(vm_->status().stop_reason, "BACKEND_ERROR");
  EXPECT_THAT(vm_->status().stop_message, HasSubstr("again and again"));
}

// A kernel that at some time gives no private memory back.
class KeepingKvm : public kvm::fake::FakeKvm {
 public:
  int Ioctl(int fd, unsigned long request, void* argument) override {
    if (keeps_ && request == kvm::kSetMemoryAttributes) {
      errno = ENOMEM;
      return -1;
    }
    return FakeKvm::Ioctl(fd, request, argument);
  }
  void Keep() { keeps_ = true; }

 private:
  std::atomic<bool> keeps_{false};
};

TEST_F(KvmNative, AVmWhoseMemoryCannotBeTakenAwayEndsAtOnceAndNoOther) {
  registry_.reset();
  KeepingKvm keeping;
  Open(&keeping);
  constexpr char kLoops[] = R"(vcpus { steps { loop { count: 1000000000
    steps { write { gpa: 0x400000 value: 1 } } } } })";
  MakeNative(kLoops);
  std::shared_ptr<Vm> vm = vm_;
  MakeNative(kLoops, 1, [](VmSpec& spec) { spec.name = "other"; });
  for (const auto& each : {vm, vm_}) {
    ASSERT_TRUE(each->Start().ok());
    Eventually([&] { return each->counters().memory.leaves[0][1] > 1; });
  }
  keeping.Keep();
  const auto refused = vm->Convert({{Gfn(0x400), 1}}, MemoryKind::kShared, mmu::Content::kDestroy);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInternal);
  // Nobody has to meet it in a fault: the guest could go on with what it has.
  Eventually([&] { return vm->status().state == VmState::kStopped; });
  EXPECT_EQ(vm->status().stop_reason, "ENGINE_BUG");
  EXPECT_THAT(vm->status().stop_message, HasSubstr("did not remove what was zapped"));
  EXPECT_FALSE(vm->Audit().ok());
  EXPECT_EQ(vm_->status().state, VmState::kRunning);
  ASSERT_TRUE(vm_->Stop(vcpu::StopReason::kStopRequested).ok());
  vm.reset();
  TearDown();
}

TEST_F(KvmNative, OneThatNeverRanEndsToo) {
  registry_.reset();
  KeepingKvm keeping;
  Open(&keeping);
  MakeNative(kWrites);
  ASSERT_TRUE(vm_->Prefault({Gfn(0x400), 512}, std::nullopt).ok());
  keeping.Keep();
  EXPECT_FALSE(vm_->Convert({{Gfn(0x400), 1}}, MemoryKind::kShared, mmu::Content::kDestroy).ok());
  Eventually([this] { return vm_->status().state == VmState::kStopped; });
  EXPECT_EQ(vm_->status().stop_reason, "ENGINE_BUG");
  EXPECT_FALSE(vm_->Start().ok());
  TearDown();
}

TEST_F(KvmNative, WhatEndsWhileItIsDeletedIsToldBefore) {
  registry_.reset();
  KeepingKvm keeping;
  Open(&keeping);
  const std::string before = journal_.Cursor();
  MakeNative(kWrites);
  ASSERT_TRUE(vm_->Prefault({Gfn(0x400), 512}, std::nullopt).ok());
  keeping.Keep();
  EXPECT_FALSE(vm_->Convert({{Gfn(0x400), 1}}, MemoryKind::kShared, mmu::Content::kDestroy).ok());
  ASSERT_TRUE(registry_->Delete("demo").ok());
  TearDown();
  const auto events = journal_.Read(*journal_.PositionOf(before, events::Journal::IfEmpty::kNow),
                                    1000, events::Filter(v1::EventFilter()));
  ASSERT_FALSE(events.events.empty());
  EXPECT_TRUE(events.events.back()->Parse().vm_state().deleted());
}

TEST_F(KvmNative, BytesCannotBeKeptOverAConversion) {
  MakeNative(R"(vcpus {
    steps { map_gpa { gpa: 0x400000 pages: 1 kind: MEMORY_KIND_SHARED preserve: true } }
    steps { expect { value: 0xffffffffffffffea } } })");
  const auto refused =
      vm_->Convert({{Gfn(0x400), 1}}, MemoryKind::kShared, mmu::Content::kPreserve);
  EXPECT_EQ(ReasonOf(refused.status()), reason::kNotOnThisBackend);
  Start();
  Finish();
  EXPECT_TRUE(Attribute(Gfn(0x400), MemoryKind::kPrivate));
}

TEST_F(KvmNative, PrefaultGivesPrivateMemoryBeforeTheGuestAsks) {
  MakeNative(R"(vcpus { steps { map_gpa { gpa: 0x800000 pages: 1 kind: MEMORY_KIND_SHARED } }
    steps { loop { count: 1000000 steps { read { gpa: 0x800000 alias: MEMORY_KIND_SHARED } } } } })");
  Start();
  Eventually([this] { return Attribute(Gfn(0x800), MemoryKind::kShared); });
  const uint64_t before = kvm_.private_bytes();
  const auto done = vm_->Prefault({Gfn(0x400), 1024}, std::nullopt);
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_TRUE(done->status.ok()) << done->status;
  EXPECT_EQ(done->frames_done, 1024u);
  EXPECT_GE(kvm_.private_bytes(), before + 1024 * kPage - (uint64_t{2} << 20));
  ASSERT_TRUE(vm_->Stop(vcpu::StopReason::kStopRequested).ok());
}

TEST_F(KvmNative, StopsWhileItWaitsForADecisionAndLeavesNothingOpen) {
  // The registry's own alone: a VM, the start-up probe's too, gives its back a moment after its
  // end.
  const auto at_rest = [this] { return kvm_.open_descriptors() == 1; };
  Eventually(at_rest);
  MakeNative(R"(vcpus { steps { read { gpa: 0x400000 alias: MEMORY_KIND_SHARED } } })", 1,
             [](VmSpec& spec) { spec.policy.mode = PolicyMode::kOrchestrator; });
  Start();
  Eventually([this] { return !vm_->Pending().empty(); });
  ASSERT_TRUE(vm_->Stop(vcpu::StopReason::kStopRequested).ok());
  vm_.reset();
  ASSERT_TRUE(registry_->Delete("demo").ok());
  Eventually(at_rest);
}

TEST_F(KvmNative, PausesAndGoesOnUnderConversions) {
  MakeNative(R"(
    vcpus { steps { loop { count: 300 steps { write { gpa: 0x400000 value: 1 } }
                                      steps { read { gpa: 0x400000 alias: MEMORY_KIND_SHARED } } } } }
    vcpus { steps { loop { count: 300 steps { write { gpa: 0x600000 value: 1 } }
                                      steps { read { gpa: 0x600000 alias: MEMORY_KIND_SHARED } } } } })",
             2);
  Start();
  for (int i = 0; i < 20 && vm_->status().state == VmState::kRunning; ++i) {
    if (!vm_->Pause().ok()) break;
    EXPECT_TRUE(vm_->Audit().ok());
    (void)vm_->Resume();
  }
  Finish();
  EXPECT_EQ(Conversions(), 2 * (300 + 299));
}

TEST_F(KvmNative, RingZeroConvertsByHypercall) {
  MakeNative(kConverts, 1, [](VmSpec& spec) { spec.cpl = 0; });
  Start();
  Finish();
  EXPECT_EQ(Conversions(), 2u);
}

TEST_F(KvmNative, RegistersAreToldOfDebugVmsOnly) {
  constexpr char kLeavesMemory[] = "vcpus { steps { write { gpa: 0x40000000 value: 1 } } }";
  for (const bool tells : {false, true}) {
    MakeNative(kLeavesMemory, 1, [tells](VmSpec& spec) { spec.tells_registers = tells; });
    Start();
    Eventually([this] { return vm_->status().state == VmState::kStopped; });
    EXPECT_EQ(vm_->status().stop_message.find("rip=0x") != std::string::npos, tells)
        << vm_->status().stop_message;
    vm_.reset();
    ASSERT_TRUE(registry_->Delete("demo").ok());
  }
}

}  // namespace
}  // namespace twinroot::host
