// The memory of VMs on kvm while their guests run: large pages, what they become, and the dirty
// log. Skipped by name where kvm cannot be used, or the host lacks what a test is about.
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/daemon/host/vm_fixture.h"

namespace twinroot::host {
namespace {

using mmu::Gfn;
using mmu::GfnRange;
using mmu::MemoryKind;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr int kPrivateLarge = 1;  // index into leaves[]

// Writes each page of 2 MiB and looks at what it wrote, for longer than anybody watches.
constexpr char kBusy[] = R"(vcpus { steps { loop { count: 1000000000
  steps { loop { count: 511 steps { write { gpa: 0x401000 stride: 4096 value: 7 value_stride: 3 } } } }
  steps { loop { count: 511 steps { read { gpa: 0x401000 stride: 4096 size: 1 } } } }
  steps { read { gpa: 0x401000 expect: 7 } }
  steps { read { gpa: 0x5ff000 expect: 1537 } }
} } })";

class KvmMemory : public VmFixture {
 protected:
  void SetUp() override {
    VmFixture::SetUp();
    if (!registry_->capabilities().kvm_usable) {
      GTEST_SKIP() << "kvm: " << registry_->capabilities().reason;
    }
  }
  // Skips where the host's own check says that it cannot.
  bool HostHas(const std::string& name) {
    for (const HostCheck& check : registry_->capabilities().checks) {
      if (check.name != name) continue;
      if (check.result != HostCheck::Result::kOk) Skip(name + ": " + check.detail);
      return check.result == HostCheck::Result::kOk;
    }
    ADD_FAILURE() << "the host has no check " << name;
    return false;
  }
  static void Skip(const std::string& why) { GTEST_SKIP() << why; }
  bool CanSettle() { return HostHas("kvm: pages of 2 MiB"); }
  bool CanLog() { return HostHas("userfaultfd: write protection of shared memory"); }

  void Run(const std::string& program, uint32_t vcpus = 1) {
    Make(program, vcpus, BackendKind::kKvm);
    Start();
  }
  void StopWell() {
    ASSERT_EQ(vm_->status().state, VmState::kRunning) << vm_->status().stop_message;
    ASSERT_TRUE(vm_->Audit().ok()) << vm_->Audit();
    ASSERT_TRUE(vm_->Stop(vcpu::StopReason::kStopRequested).ok());
  }
  uint64_t LargeLeaves() const { return vm_->counters().memory.leaves[0][kPrivateLarge]; }
  std::string Shared(GfnRange range) const {
    auto bytes = vm_->ReadMemory(range.first.value << 12, range.count << 12);
    EXPECT_TRUE(bytes.ok()) << bytes.status();
    return bytes.ok() ? *bytes : "";
  }
};

TEST_F(KvmMemory, AGuestTakesALargePageWithOneFault) {
  Run(R"(vcpus { steps { loop { count: 512
    steps { write { gpa: 0x400000 stride: 4096 value: 1 } } } } })");
  Finish();
  EXPECT_GE(LargeLeaves(), 2u) << "its own, and those it runs from";
  EXPECT_LT(vm_->counters().memory.faults_fixed, 100u);
}

TEST_F(KvmMemory, LargePagesBecomeWholeWhileTheGuestRuns) {
  if (!CanSettle()) return;
  Run(kBusy);
  Eventually([&] { return vm_->counters().projection.whole >= 3; });
  Eventually([&] { return vm_->counters().projection.pieces == 0; });
  EXPECT_EQ(vm_->counters().projection.whole, LargeLeaves());
  StopWell();
}

TEST_F(KvmMemory, APartOfALargePageIsConvertedAndTheRestKeepsItsBytes) {
  Run(kBusy);
  Eventually([&] { return LargeLeaves() >= 3; });
  // The first page of the guest's 2 MiB goes to and fro while it works on the others.
  for (int round = 0; round < 20; ++round) {
    const MemoryKind kind = round % 2 == 0 ? MemoryKind::kShared : MemoryKind::kPrivate;
    ASSERT_TRUE(vm_->Convert({{Gfn(0x400), 1}}, kind, mmu::Content::kDestroy).ok());
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_GE(vm_->counters().memory.splits_conversion, 1u);
  ASSERT_TRUE(vm_->RecoverPages({{Gfn(0x400), 512}}).ok());
  StopWell();
}

TEST_F(KvmMemory, ALogSplitsLargePagesAndTheyBecomeWholeAgainAfterIt) {
  if (!CanLog() || !CanSettle()) return;
  for (const bool eager : {true, false}) {
    Run(kBusy);
    Eventually([&] { return vm_->counters().projection.whole >= 3; });
    mmu::DirtyLogOptions options;
    options.eager_split = eager;
    const auto split = vm_->EnableDirtyLog(options);
    ASSERT_TRUE(split.ok()) << split.status();
    EXPECT_EQ(split->split_2m > 0, eager);
    uint64_t pages = 0;
    Eventually([&] {
      const auto runs = vm_->HarvestDirty(std::nullopt);
      EXPECT_TRUE(runs.ok()) << runs.status();
      for (const GfnRange& run : *runs) {
        if (run.first >= Gfn(0x400) && run.end() <= Gfn(0x600)) pages += run.count;
      }
      return pages > 2000;  // each of its 511 pages again and again
    });
    ASSERT_TRUE(vm_->DisableDirtyLog().ok());
    Eventually([&] { return vm_->counters().projection.renewals >= 1; });
    // Those that the guest still uses: its code and what it writes. What only the start touched
    // comes back with the first access.
    Eventually([&] {
      const auto leaves = vm_->counters().projection;
      return leaves.whole >= 2 && leaves.pieces == 0;
    });
    StopWell();
    ASSERT_TRUE(registry_->Delete("demo").ok());
  }
}

// What a migration does: copies what a harvest names, while the guest writes on.
TEST_F(KvmMemory, NoWriteIsLostByHarvestsOfARunningGuest) {
  if (!CanLog()) return;
  constexpr GfnRange kPages{Gfn(0x400), 512};
  std::string phases;
  for (int phase = 1; phase <= 6; ++phase) {
    absl::StrAppend(&phases, "steps { loop { count: 30 steps { loop { count: 512 steps { write { ",
                    "gpa: 0x400000 alias: MEMORY_KIND_SHARED stride: 4096 value: ", phase * 1000,
                    " value_stride: 1 } } } } } } ");
  }
  // Without end: however fast the guest is, it writes when the log begins and when it is stopped.
  const std::string program = absl::StrCat(
      "vcpus { steps { map_gpa { gpa: 0x400000 pages: 512 kind: MEMORY_KIND_SHARED } } "
      "steps { print { text: \"go\" } } steps { loop { count: 1000000000 ",
      phases, "} } }");
  for (const bool eager : {true, false}) {
    Run(program);
    Eventually([&] { return vm_->ReadConsole(0, 10).data == "go"; });
    mmu::DirtyLogOptions options;
    options.eager_split = eager;
    ASSERT_TRUE(vm_->EnableDirtyLog(options).ok());
    std::string copy = Shared(kPages);
    const auto harvest = [&] {
      const auto runs = vm_->HarvestDirty(std::nullopt);
      ASSERT_TRUE(runs.ok()) << runs.status();
      for (const GfnRange& run : *runs) {
        const GfnRange part = mmu::Intersection(run, kPages);
        if (!part.empty())
          copy.replace((part.first - kPages.first) << 12, part.count << 12, Shared(part));
      }
    };
    for (int round = 0; round < 50; ++round) harvest();
    Eventually([&] {
      harvest();
      return vm_->counters().dirty_pages_harvested >= 4 * kPages.count;
    });
    StopWell();
    harvest();
    EXPECT_TRUE(copy == Shared(kPages)) << "a page was written and not harvested";
    ASSERT_TRUE(registry_->Delete("demo").ok());
  }
}

TEST_F(KvmMemory, APausedGuestCanBeLoggedAndStopped) {
  if (!CanLog()) return;
  Run(kBusy);
  Eventually([&] { return LargeLeaves() >= 3; });
  ASSERT_TRUE(vm_->Pause().ok());
  ASSERT_TRUE(vm_->EnableDirtyLog({}).ok());
  ASSERT_TRUE(vm_->DisableDirtyLog().ok());
  if (registry_->capabilities().kvm_usable && CanSettle()) {
    // Its windows begin anew under the pause, which stays.
    Eventually([&] { return vm_->counters().projection.renewals >= 1; });
  }
  EXPECT_EQ(vm_->status().state, VmState::kPaused);
  ASSERT_TRUE(vm_->Resume().ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  StopWell();
}

}  // namespace
}  // namespace twinroot::host
