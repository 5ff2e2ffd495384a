// The dirty log of real VMs: what sim guests write is what a harvest tells of.
#include <optional>
#include <string>
#include <vector>

#include "daemon/reasons.h"
#include "tests/daemon/host/vm_fixture.h"

namespace twinroot::host {
namespace {

using mmu::DirtyClear;
using mmu::DirtyLogMode;
using mmu::DirtyLogOptions;
using mmu::Gfn;
using mmu::GfnRange;

using Runs = std::vector<GfnRange>;

class DirtyLogOfAVm : public VmFixture {
 protected:
  Runs Harvest(std::optional<GfnRange> range = std::nullopt) {
    auto runs = vm_->HarvestDirty(range);
    EXPECT_TRUE(runs.ok()) << runs.status();
    return runs.ok() ? *runs : Runs{};
  }
  static void ExpectRefused(const absl::Status& status, const std::string& reason) {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    EXPECT_EQ(ReasonOf(status), reason) << status;
  }
};

// Reads one page, writes one page and then three in a row.
constexpr char kWriter[] = R"(vcpus {
  steps { read { gpa: 0x300000 } }
  steps { write { gpa: 0x400000 value: 1 } }
  steps { loop { count: 3 steps { write { gpa: 0x600000 stride: 4096 value: 1 } } } }
})";
const Runs kWritten = {{Gfn(0x400), 1}, {Gfn(0x600), 3}};

TEST_F(DirtyLogOfAVm, HarvestTellsOfTheWrittenPagesOnce) {
  for (const DirtyLogMode mode : {DirtyLogMode::kDirtyBit, DirtyLogMode::kPml}) {
    Make(kWriter);
    DirtyLogOptions options;
    options.mode = mode;
    ASSERT_TRUE(vm_->EnableDirtyLog(options).ok());
    Start();
    Finish();
    EXPECT_EQ(Harvest(), kWritten);
    EXPECT_EQ(Harvest(), Runs{});
    EXPECT_EQ(vm_->counters().dirty_pages_harvested, 4u);
    ASSERT_TRUE(vm_->DisableDirtyLog().ok());
    EXPECT_FALSE(vm_->counters().dirty_log_enabled);
    ASSERT_TRUE(registry_->Delete("demo").ok());
  }
}

TEST_F(DirtyLogOfAVm, WritesBeforeTheLogAreNotInIt) {
  Make(kWriter);
  Start();
  Finish();
  ASSERT_TRUE(vm_->EnableDirtyLog({}).ok());
  EXPECT_EQ(Harvest(), Runs{});
}

TEST_F(DirtyLogOfAVm, AHarvestOfARangeLeavesTheRest) {
  Make(kWriter);
  ASSERT_TRUE(vm_->EnableDirtyLog({}).ok());
  Start();
  Finish();
  EXPECT_EQ(Harvest(GfnRange{Gfn(0x600), 2}), (Runs{{Gfn(0x600), 2}}));
  EXPECT_EQ(Harvest(), (Runs{{Gfn(0x400), 1}, {Gfn(0x602), 1}}));
}

TEST_F(DirtyLogOfAVm, ManualClearingIsByThePage) {
  Make(kWriter);
  DirtyLogOptions options;
  options.clear = DirtyClear::kManual;
  ASSERT_TRUE(vm_->EnableDirtyLog(options).ok());
  Start();
  Finish();
  EXPECT_EQ(Harvest(), kWritten);
  EXPECT_EQ(Harvest(), kWritten);
  // Its neighbours in the same word stay.
  ASSERT_TRUE(vm_->ClearDirty({{Gfn(0x601), 1}}).ok());
  EXPECT_EQ(Harvest(), (Runs{{Gfn(0x400), 1}, {Gfn(0x600), 1}, {Gfn(0x602), 1}}));
  EXPECT_EQ(vm_->ClearDirty({{Gfn(0x400), 1}, {Gfn(1 << 30), 1}}).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Harvest().size(), 3u);
  ASSERT_TRUE(vm_->ClearDirty({{Gfn(0), 0x1000}}).ok());
  EXPECT_EQ(Harvest(), Runs{});
}

TEST_F(DirtyLogOfAVm, InitiallyAllSetIsAllMemoryUntilItIsCleared) {
  Make(kWriter);
  DirtyLogOptions options;
  options.clear = DirtyClear::kManual;
  options.initially_all_set = true;
  ASSERT_TRUE(vm_->EnableDirtyLog(options).ok());
  EXPECT_EQ(Harvest(), (Runs{{Gfn(0), 0x1000}}));
  ASSERT_TRUE(vm_->ClearDirty({{Gfn(0), 0x1000}}).ok());
  Start();
  Finish();
  EXPECT_EQ(Harvest(), kWritten);
}

TEST_F(DirtyLogOfAVm, WhatTheHostWritesCounts) {
  Make(kWriter);
  ASSERT_TRUE(
      vm_->Convert({{Gfn(0x500), 4}}, mmu::MemoryKind::kShared, mmu::Content::kDestroy).ok());
  ASSERT_TRUE(vm_->EnableDirtyLog({}).ok());
  ASSERT_TRUE(vm_->WriteMemory(0x501ffe, "four").ok());
  EXPECT_EQ(Harvest(), (Runs{{Gfn(0x501), 2}}));
  EXPECT_FALSE(vm_->WriteMemory(0x400000, "private").ok());
  EXPECT_EQ(Harvest(), Runs{});
}

TEST_F(DirtyLogOfAVm, AFullPageModificationLogLosesNothing) {
  // Each round writes more pages than a log has entries.
  Make(R"(vcpus { steps { loop { count: 20 steps { loop { count: 1300
    steps { write { gpa: 0x400000 stride: 4096 value: 1 } } } } } } })");
  DirtyLogOptions options;
  options.mode = DirtyLogMode::kPml;
  ASSERT_TRUE(vm_->EnableDirtyLog(options).ok());
  Start();
  std::vector<bool> seen(0x1000);
  const auto harvest = [&] {
    for (const GfnRange& run : Harvest()) {
      for (Gfn gfn = run.first; gfn < run.end(); gfn = gfn + 1) seen[gfn.value] = true;
    }
  };
  while (vm_->status().state != VmState::kStopped) harvest();
  harvest();
  for (uint64_t gfn = 0; gfn < seen.size(); ++gfn) {
    EXPECT_EQ(seen[gfn], gfn >= 0x400 && gfn < 0x400 + 1300) << gfn;
  }
  // Another log begins empty.
  ASSERT_TRUE(vm_->DisableDirtyLog().ok());
  ASSERT_TRUE(vm_->EnableDirtyLog(options).ok());
  EXPECT_EQ(Harvest(), Runs{});
}

TEST_F(DirtyLogOfAVm, AnUndoneHarvestIsToldAgain) {
  Make(kWriter);
  ASSERT_TRUE(vm_->EnableDirtyLog({}).ok());
  Start();
  Finish();
  const Runs runs = Harvest();
  vm_->UndoHarvest(runs);
  EXPECT_EQ(Harvest(), kWritten);
}

TEST_F(DirtyLogOfAVm, AVcpuWhoseRingIsFullWaitsForTheHarvest) {
  Make(R"(vcpus {
    steps { loop { count: 300 steps { write { gpa: 0x400000 stride: 4096 value: 1 } } } }
  })");
  DirtyLogOptions options;
  options.ring_entries = 192;  // full with 128 of them
  ASSERT_TRUE(vm_->EnableDirtyLog(options).ok());
  Start();
  Runs all;
  for (int waits = 0; waits < 2; ++waits) {
    Eventually([this] { return vm_->counters().vcpus_waiting_for_harvest == 1; });
    EXPECT_EQ(vm_->status().state, VmState::kRunning);
    const Runs runs = Harvest();
    all.insert(all.end(), runs.begin(), runs.end());
  }
  Finish();
  const Runs last = Harvest();
  all.insert(all.end(), last.begin(), last.end());
  uint64_t next = 0x400;
  for (const GfnRange& run : all) {
    EXPECT_EQ(run.first, Gfn(next));
    next = run.end().value;
  }
  EXPECT_EQ(next, 0x400u + 300);
  EXPECT_EQ(vm_->counters().vcpus_waiting_for_harvest, 0u);
}

TEST_F(DirtyLogOfAVm, AnEndOfTheLogOrOfTheVmFreesWhoWaits) {
  constexpr char kMuch[] = R"(vcpus {
    steps { loop { count: 1000 steps { write { gpa: 0x400000 stride: 4096 value: 1 } } } }
  })";
  DirtyLogOptions options;
  options.ring_entries = 192;
  Make(kMuch);
  ASSERT_TRUE(vm_->EnableDirtyLog(options).ok());
  Start();
  Eventually([this] { return vm_->counters().vcpus_waiting_for_harvest == 1; });
  ASSERT_TRUE(vm_->DisableDirtyLog().ok());
  Finish();
  ASSERT_TRUE(registry_->Delete("demo").ok());

  Make(kMuch);
  ASSERT_TRUE(vm_->EnableDirtyLog(options).ok());
  Start();
  Eventually([this] { return vm_->counters().vcpus_waiting_for_harvest == 1; });
  ASSERT_TRUE(vm_->Stop(vcpu::StopReason::kStopRequested).ok());
  EXPECT_EQ(vm_->status().stop_reason, "STOP_REQUESTED");
}

TEST_F(DirtyLogOfAVm, RingsOfSeveralVcpusAreTakenTogether) {
  Make(R"(
    vcpus { steps { loop { count: 500 steps { write { gpa: 0x400000 stride: 4096 value: 1 } } } } }
    vcpus { steps { loop { count: 500 steps { write { gpa: 0x700000 stride: 4096 value: 1 } } } } }
  )",
       2);
  DirtyLogOptions options;
  options.ring_entries = 129;
  ASSERT_TRUE(vm_->EnableDirtyLog(options).ok());
  Start();
  std::vector<int> seen(0x1000);
  const auto harvest = [&] {
    for (const GfnRange& run : Harvest()) {
      for (Gfn gfn = run.first; gfn < run.end(); gfn = gfn + 1) ++seen[gfn.value];
    }
  };
  while (vm_->status().state != VmState::kStopped) harvest();
  harvest();
  for (uint64_t gfn = 0; gfn < seen.size(); ++gfn) {
    const bool written = (gfn >= 0x400 && gfn < 0x400 + 500) || (gfn >= 0x700 && gfn < 0x700 + 500);
    // A page may be told of twice: taken from the ring between its mark and its write.
    EXPECT_EQ(seen[gfn] > 0, written) << gfn;
  }
}

TEST_F(DirtyLogOfAVm, CallsThatTheStateForbidsHaveTheirReason) {
  Make(kWriter);
  ExpectRefused(vm_->HarvestDirty(std::nullopt).status(), reason::kDirtyLogOff);
  ExpectRefused(vm_->ClearDirty({{Gfn(0), 1}}), reason::kDirtyLogOff);
  ExpectRefused(vm_->DisableDirtyLog().status(), reason::kDirtyLogOff);
  ASSERT_TRUE(vm_->EnableDirtyLog({}).ok());
  ExpectRefused(vm_->EnableDirtyLog({}).status(), reason::kDirtyLogOn);
  ExpectRefused(vm_->ClearDirty({{Gfn(0), 1}}), reason::kDirtyLogNotManual);
  EXPECT_EQ(vm_->HarvestDirty(GfnRange{Gfn(0), 0x2000}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(DirtyLogOfAVm, KvmLogsByWriteProtectionOnly) {
  if (!registry_->capabilities().kvm_usable) {
    GTEST_SKIP() << "kvm: " << registry_->capabilities().reason;
  }
  Make(kWriter, 1, BackendKind::kKvm);
  for (const DirtyLogMode mode : {DirtyLogMode::kDirtyBit, DirtyLogMode::kPml}) {
    DirtyLogOptions options;
    options.mode = mode;
    ExpectRefused(vm_->EnableDirtyLog(options).status(), reason::kDirtyLogUnsupported);
  }
  EXPECT_FALSE(vm_->counters().dirty_log_enabled);
}

TEST_F(DirtyLogOfAVm, PagesAreSplitAndMadeLargeAgain) {
  Make(kWriter);
  Start();
  Finish();
  const uint64_t large = vm_->counters().memory.leaves[0][1];
  ASSERT_GT(large, 0u);
  auto split = vm_->SplitPages({{Gfn(0x400), 1}}, mmu::Level::k4K);
  ASSERT_TRUE(split.ok()) << split.status();
  EXPECT_EQ(split->split_2m, 1u);
  EXPECT_EQ(vm_->counters().memory.leaves[0][1], large - 1);
  auto recovered = vm_->RecoverPages({{Gfn(0x400), 0x200}});
  ASSERT_TRUE(recovered.ok()) << recovered.status();
  EXPECT_EQ(recovered->collapsed, 1u);
  EXPECT_EQ(vm_->counters().memory.leaves[0][1], large);
  EXPECT_EQ(vm_->SplitPages({{Gfn(0x400), 1}, {Gfn(1 << 30), 1}}, mmu::Level::k4K).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(vm_->counters().memory.leaves[0][1], large);
  EXPECT_TRUE(vm_->Audit().ok());
}

}  // namespace
}  // namespace twinroot::host
