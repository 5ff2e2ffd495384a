// VMs on shadow tables: what the API does to their memory while a guest's own tables name it.
#include <cstring>
#include <string>
#include <vector>

#include "daemon/reasons.h"
#include "tests/daemon/host/vm_fixture.h"

namespace twinroot::host {
namespace {

using mmu::Gfn;
using mmu::GfnRange;
using mmu::MemoryKind;

void OnShadow(VmSpec& spec) {
  spec.mmu = mmu::MmuMode::kShadow;
  spec.policy.mode = PolicyMode::kOrchestrator;
}

// Four levels: 4 MiB to 6 MiB as they are, by a page of 2M; from 1 GiB on what the table at
// 0x600000 says, whose first entry names 0x700000. The guest asks for a conversion of 0xA00000 to
// let the test in between, and then goes on with `after`.
std::string Paged(const std::string& after, const std::string& before = "") {
  const auto write = [](uint64_t gpa, uint64_t value) {
    return "steps { write { gpa: " + std::to_string(gpa) + " value: " + std::to_string(value) +
           " } } ";
  };
  const auto move = [](const std::string& to, uint64_t value) {
    return "steps { move { to: REGISTER_" + to + " value: " + std::to_string(value) + " } } ";
  };
  return "vcpus { " + write(0x400000, 0x401027) + write(0x401000, 0x404027) +
         write(0x404010, 0x4000E7) + write(0x401008, 0x402027) + write(0x402000, 0x600027) +
         write(0x600000, 0x700007) + write(0x700000, 0xA) + write(0x800000, 0xB) +
         move("EFER", 0x900) + move("CR4", 0x20) + move("CR3", 0x400000) + move("CR0", 0x80010001) +
         before +
         "steps { write { gpa: 0x40000000 value: 0xC } } "
         "steps { map_gpa { gpa: 0xA00000 pages: 1 kind: MEMORY_KIND_SHARED } } " +
         after + "}";
}

class ShadowVm : public VmFixture {
 protected:
  // Runs until the guest waits for its conversion.
  void RunToTheMiddle(const std::string& program) {
    Make(program, 1, BackendKind::kSim, OnShadow);
    Start();
    WaitForTheMiddle();
    EXPECT_TRUE(vm_->Audit().ok()) << vm_->Audit();
  }
  void WaitForTheMiddle() {
    Eventually(
        [this] { return !vm_->Pending().empty() || vm_->status().state == VmState::kStopped; });
    ASSERT_EQ(vm_->Pending().size(), 1u) << vm_->status().stop_message;
  }
  void GoOn() {
    EXPECT_TRUE(vm_->Audit().ok()) << vm_->Audit();
    vm_->Resolve(vm_->Pending().front().id, Resolution::kApply);
  }
  void WaitForTheEnd() {
    Eventually([this] { return vm_->status().state == VmState::kStopped; });
    EXPECT_TRUE(vm_->Audit().ok()) << vm_->Audit();
  }
};

TEST_F(ShadowVm, AConversionReachesTheLeavesOfAGuestsOwnTables) {
  RunToTheMiddle(
      Paged("steps { read { gpa: 0x40000000 expect: 0 } } "
            "steps { write { gpa: 0x40000000 value: 0xD } }"));
  ASSERT_TRUE(vm_->Convert({{Gfn(0x700), 1}}, MemoryKind::kShared, mmu::Content::kDestroy).ok());
  GoOn();
  Finish();
  EXPECT_EQ(vm_->ReadMemory(0x700000, 1).value(), "\x0D");
}

TEST_F(ShadowVm, WhoConvertsAPageTableHasNoTableAnyMore) {
  RunToTheMiddle(Paged("steps { read { gpa: 0x40000000 expect: 0x100000000 catch_fault: true } }"));
  ASSERT_TRUE(vm_->Convert({{Gfn(0x600), 1}}, MemoryKind::kShared, mmu::Content::kDestroy).ok());
  GoOn();
  Finish();
}

TEST_F(ShadowVm, ATableInSharedMemoryThatTheHostWritesCounts) {
  // It is shared before it is a table: the first conversion is the one that is waited for.
  Make("vcpus { steps { map_gpa { gpa: 0x600000 pages: 1 kind: MEMORY_KIND_SHARED } } " +
           Paged("steps { read { gpa: 0x40000000 expect: 0xB } }").substr(8),
       1, BackendKind::kSim, OnShadow);
  Start();
  WaitForTheMiddle();
  const uint64_t first = vm_->Pending().front().id;
  vm_->Resolve(first, Resolution::kApply);
  Eventually([&] { return !vm_->Pending().empty() && vm_->Pending().front().id != first; });
  const uint64_t entry = 0x800067;
  std::string bytes(sizeof(entry), '\0');
  std::memcpy(bytes.data(), &entry, sizeof(entry));
  ASSERT_TRUE(vm_->WriteMemory(0x600000, bytes).ok());
  GoOn();
  Finish();
}

TEST_F(ShadowVm, TheDirtyLogHasWritesByLinearAddressAndTheFlagsOfTheGuestsTables) {
  Make(Paged("steps { write { gpa: 0x40000000 value: 1 } }"), 1, BackendKind::kSim, OnShadow);
  Start();
  WaitForTheMiddle();
  const auto begun = vm_->EnableDirtyLog({});
  ASSERT_TRUE(begun.ok()) << begun.status();
  EXPECT_EQ(vm_->HarvestDirty(std::nullopt).value(), std::vector<GfnRange>());
  GoOn();
  Finish();
  const auto runs = vm_->HarvestDirty(std::nullopt);
  ASSERT_TRUE(runs.ok());
  EXPECT_EQ(*runs, (std::vector<GfnRange>{{Gfn(0x700), 1}, {Gfn(0xA00), 1}}));

  mmu::DirtyLogOptions by_d_bits;
  by_d_bits.mode = mmu::DirtyLogMode::kDirtyBit;
  ASSERT_TRUE(vm_->DisableDirtyLog().ok());
  EXPECT_EQ(ReasonOf(vm_->EnableDirtyLog(by_d_bits).status()), reason::kDirtyLogUnsupported);
}

TEST_F(ShadowVm, EveryWriteIsInSomeHarvest) {
  Make(
      "vcpus { steps { loop { count: 200 steps { write { gpa: 0x400000 stride: 0x1000 "
      "value_stride: 1 } } } } steps { map_gpa { gpa: 0xA00000 pages: 1 kind: "
      "MEMORY_KIND_SHARED } } steps { loop { count: 100 steps { write { gpa: 0x400000 stride: "
      "0x2000 value: 5 } } } } }",
      1, BackendKind::kSim, OnShadow);
  ASSERT_TRUE(vm_->EnableDirtyLog({}).ok());
  Start();
  WaitForTheMiddle();
  EXPECT_EQ(vm_->HarvestDirty(std::nullopt).value(), (std::vector<GfnRange>{{Gfn(0x400), 200}}));
  GoOn();
  Finish();
  std::vector<GfnRange> second;
  for (uint64_t i = 0; i < 100; ++i) second.push_back({Gfn(0x400 + 2 * i), 1});
  second.push_back({Gfn(0xA00), 1});
  EXPECT_EQ(vm_->HarvestDirty(std::nullopt).value(), second);
}

TEST_F(ShadowVm, AMemslotThatMovesTakesItsLeavesAlong) {
  const std::string program =
      Paged("steps { read { gpa: 0x40001000 } }", "steps { write { gpa: 0x40001000 value: 7 } } ");
  Make(program.substr(0, 8) + "steps { write { gpa: 0x600008 value: 0x8001007 } } " +
           program.substr(8),
       1, BackendKind::kSim, OnShadow);
  ASSERT_TRUE(vm_->AddMemslot({Gfn(0x8000), 0x400}).ok());
  Start();
  WaitForTheMiddle();
  ASSERT_TRUE(vm_->MoveMemslot(Gfn(0x8000), Gfn(0x9000)).ok());
  GoOn();
  WaitForTheEnd();
  EXPECT_EQ(vm_->status().stop_reason, "MMIO_OUTSIDE_MEMORY");
}

TEST_F(ShadowVm, SplitRecoveryAgingAndPopulationFindShadowLeavesToo) {
  RunToTheMiddle(
      "vcpus { steps { loop { count: 6 steps { write { gpa: 0x400000 stride: 0x200000 value: 3 } "
      "} } } steps { map_gpa { gpa: 0xA00000 pages: 1 kind: MEMORY_KIND_SHARED } } "
      "steps { read { gpa: 0x600000 expect: 3 } } }");
  const std::vector<GfnRange> memory = vm_->Memory();
  const auto aged = vm_->AgePages(memory.front());
  ASSERT_TRUE(aged.ok());
  EXPECT_FALSE(aged->empty());
  EXPECT_EQ(vm_->AgePages(memory.front()).value(), std::vector<GfnRange>());
  const auto split = vm_->SplitPages(memory, mmu::Level::k4K);
  ASSERT_TRUE(split.ok()) << split.status();
  EXPECT_GT(split->split_2m, 0u);
  EXPECT_TRUE(vm_->Audit().ok()) << vm_->Audit();
  const auto recovered = vm_->RecoverPages(memory);
  ASSERT_TRUE(recovered.ok());
  EXPECT_EQ(recovered->collapsed, split->split_2m);
  const auto populated = vm_->Prefault({Gfn(0xC00), 0x100}, std::nullopt);
  ASSERT_TRUE(populated.ok());
  EXPECT_EQ(populated->frames_done, 0x100u);
  GoOn();
  Finish();
  EXPECT_GT(vm_->counters().memory.shadow_pages, 0u);
}

TEST_F(ShadowVm, NoTableOfItsGoesByGuestPhysicalAddress) {
  Make(Paged(""), 1, BackendKind::kSim, OnShadow);
  EXPECT_EQ(ReasonOf(vm_->Translate(0x400000, MemoryKind::kPrivate).status()),
            reason::kNotOnThisBackend);
  EXPECT_EQ(ReasonOf(vm_->DumpTables(MemoryKind::kPrivate, nullptr, 1).status()),
            reason::kNotOnThisBackend);
}

TEST_F(ShadowVm, DeniedWritesStopIt) {
  RunToTheMiddle(Paged("steps { write { gpa: 0x40000000 value: 1 } }"));
  mmu::AttributeChange change;
  change.ranges = {{Gfn(0x700), 1}};
  change.deny = mmu::Access::Write();
  ASSERT_TRUE(vm_->Change(change).ok());
  GoOn();
  WaitForTheEnd();
  EXPECT_EQ(vm_->status().stop_reason, "MEMORY_FAULT");
}

TEST_F(ShadowVm, FourGuestsVcpusShareTheirShadowsWhileTheHostTakesThemAway) {
  std::string program;
  for (uint64_t vcpu = 0; vcpu < 4; ++vcpu) {
    program += "vcpus { steps { loop { count: 3000 steps { write { gpa: " +
               std::to_string(0x400000 + 8 * vcpu) +
               " stride: 0x1000 value_stride: 1 } } } } steps { read { gpa: " +
               std::to_string(0x400000 + 8 * vcpu + 0x1000 * 2999) + " expect: 2999 } } } ";
  }
  Make(program, 4, BackendKind::kSim, OnShadow);
  Start();
  mmu::Level target = mmu::Level::k4K;
  while (vm_->status().state != VmState::kStopped) {
    ASSERT_TRUE(vm_->EnableDirtyLog({}).ok());
    ASSERT_TRUE(vm_->HarvestDirty(std::nullopt).ok());
    ASSERT_TRUE(vm_->DisableDirtyLog().ok());
    ASSERT_TRUE(vm_->SplitPages(vm_->Memory(), target).ok());
    ASSERT_TRUE(vm_->RecoverPages(vm_->Memory()).ok());
    ASSERT_TRUE(vm_->Audit().ok()) << vm_->Audit();
  }
  Finish();
}

// A6, and what only sim has.
TEST_F(ShadowVm, A6_AProgramThatNamesTheSharedAliasIsRefused) {
  Make("vcpus { steps { read { gpa: 0x400000 alias: MEMORY_KIND_SHARED } } }", 1, BackendKind::kSim,
       OnShadow);
  const absl::Status refused = vm_->Start();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition) << refused;
}

TEST_F(ShadowVm, A6_LegacyPagingStopsAVmWithStolenBits) {
  Make("vcpus { steps { move { to: REGISTER_CR0 value: 0x80000001 } } }");
  Start();
  Eventually([this] { return vm_->status().state == VmState::kStopped; });
  EXPECT_EQ(vm_->status().stop_reason, "UNHANDLED_EXIT");
  EXPECT_NE(vm_->status().stop_message.find("shared bit"), std::string::npos);
}

}  // namespace
}  // namespace twinroot::host
