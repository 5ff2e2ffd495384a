// The dirty log through the facade: starting, harvesting, clearing, ending.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "mmu/tables/epoch.h"
#include "tests/fakes/processor_vm.h"

namespace twinroot::mmu {
namespace {

constexpr auto kPrivate = MemoryKind::kPrivate;
constexpr auto kShared = MemoryKind::kShared;
constexpr auto kManual = DirtyClear::kManual;
using Calls = std::vector<std::string>;

std::vector<uint64_t> PagesOf(const DirtyPages& pages) {
  std::vector<uint64_t> gfns;
  for (uint64_t i = 0; i < 64 * pages.words.size(); ++i) {
    if (pages.words[i / 64] >> i % 64 & 1) gfns.push_back(pages.range.first.value + i);
  }
  return gfns;
}
std::vector<uint64_t> Harvest(GuestAddressSpace& space, GfnRange range = Frames(0, 2048)) {
  const auto pages = space.HarvestDirty(range);
  EXPECT_TRUE(pages.ok()) << pages.status();
  return pages.ok() ? PagesOf(*pages) : std::vector<uint64_t>();
}
Access AccessOf(TestSpace& t, uint64_t gfn, MemoryKind kind = kPrivate) {
  return t.space->Translate(Gpa(gfn << kPageShift), kind)->access;
}
using Gfns = std::vector<uint64_t>;
// Somebody took the right to write away outside of the engine since the last Take.
bool Withheld(TestSpace& t, GfnRange range) {
  const Calls calls = t.log.Take();
  return std::count(calls.begin(), calls.end(),
                    CallText("withhold", kPrivate, range.first.value, range.count)) != 0;
}

TEST(DirtyTrackingTest, F4_EnableSplitsWhatIsMappedAndTakesWWithOneFlush) {
  TestSpace t;
  for (uint64_t gfn : {0, 512, 1024}) ASSERT_TRUE(t.Fixes(gfn, kPrivate));
  t.log.Take();
  const auto enabled = t.space->EnableDirtyLog({});
  ASSERT_TRUE(enabled.ok()) << enabled.status();
  EXPECT_EQ(enabled->split_2m, 3u);
  EXPECT_EQ(enabled->kept, 0u);
  EXPECT_EQ(t.log.Take(), (Calls{"flush private 0x0+1536"}));
  EXPECT_EQ(t.space->stats().splits_dirty_log, 3u);
  EXPECT_EQ(AccessOf(t, 700), Access::Read() | Access::Fetch());
  EXPECT_EQ(t.LevelOf(700, kPrivate), Level::k4K);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(DirtyTrackingTest, F2_TheFastPathGivesWBackAndSpuriousFaultsAreCountedApart) {
  TestSpace t;
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  ASSERT_TRUE(t.space->EnableDirtyLog({}).ok());
  t.log.Take();
  const auto before = t.space->stats();
  EXPECT_TRUE(std::holds_alternative<Fixed>(t.Touch(5, kPrivate, Access::Write())));
  EXPECT_TRUE(std::holds_alternative<Spurious>(t.Touch(5, kPrivate, Access::Write())));
  const auto after = t.space->stats();
  EXPECT_EQ(after.faults_fast, before.faults_fast + 1);
  EXPECT_EQ(after.faults_spurious, before.faults_spurious + 1);
  EXPECT_EQ(AccessOf(t, 5), Access::All());
  EXPECT_TRUE(t.log.Take().empty()) << "nothing is flushed";
  EXPECT_EQ(Harvest(*t.space), Gfns{5});
}

TEST(DirtyTrackingTest, F2_ALargePageNeverBecomesWritableUnderTheLog) {
  for (const auto mode : {DirtyLogMode::kWriteProtect, DirtyLogMode::kDirtyBit}) {
    TestSpace t;
    ASSERT_TRUE(t.Fixes(5, kPrivate));
    ASSERT_TRUE(t.space->EnableDirtyLog({.mode = mode, .eager_split = false}).ok());
    EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k2M);
    EXPECT_FALSE(AccessOf(t, 5).write());
    EXPECT_TRUE(std::holds_alternative<Spurious>(t.Touch(5, kPrivate, Access::Read())));
    EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k2M) << "a read needs no split";
    EXPECT_TRUE(std::holds_alternative<Fixed>(t.Touch(5, kPrivate, Access::Write())));
    EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k4K);
    EXPECT_TRUE(AccessOf(t, 5).write());
    EXPECT_FALSE(AccessOf(t, 6).write());
    EXPECT_EQ(t.space->stats().splits_fault, 1u);
  }
}

TEST(DirtyTrackingTest, B9_KeptPagesLoseWAreCountedAndStayCorrect) {
  // Root and two tables, one spare.
  TestSpace t({.shared_bit = {}, .pool_pages = 4});
  ASSERT_TRUE(t.create_status.ok()) << t.create_status;
  for (uint64_t gfn : {0, 512, 1024}) ASSERT_TRUE(t.Fixes(gfn, kPrivate));
  const auto enabled = t.space->EnableDirtyLog({});
  ASSERT_TRUE(enabled.ok()) << enabled.status();
  EXPECT_EQ(enabled->split_2m, 1u);
  EXPECT_EQ(enabled->kept, 2u);
  EXPECT_EQ(t.space->stats().splits_kept, 2u);
  for (uint64_t gfn : {0, 512, 1024}) EXPECT_FALSE(AccessOf(t, gfn).write()) << gfn;
  EXPECT_EQ(t.LevelOf(1024, kPrivate), Level::k2M);
  const FaultOutcome write = t.Touch(1030, kPrivate, Access::Write());
  ASSERT_TRUE(std::holds_alternative<Failed>(write));
  EXPECT_TRUE(absl::IsResourceExhausted(std::get<Failed>(write).status));
  EXPECT_FALSE(AccessOf(t, 1030).write());
  EXPECT_EQ(t.space->bugged(), "");
  ASSERT_TRUE(t.space->DisableDirtyLog().ok());
  EXPECT_TRUE(std::holds_alternative<Fixed>(t.Touch(1030, kPrivate, Access::Write())));
  EXPECT_EQ(t.LevelOf(1030, kPrivate), Level::k2M);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(DirtyTrackingTest, F3_AHarvestFlushesBeforeItReports) {
  TestSpace t;
  ASSERT_TRUE(t.space->EnableDirtyLog({}).ok());
  t.Touch(5, kPrivate, Access::Write());
  t.Touch(70, kPrivate, Access::Write());
  t.log.Take();
  EXPECT_EQ(Harvest(*t.space), (Gfns{5, 70}));
  EXPECT_EQ(t.log.Take(), (Calls{"flush private 0x5+66"}));
  EXPECT_FALSE(AccessOf(t, 5).write());
  EXPECT_TRUE(Harvest(*t.space).empty());
  EXPECT_TRUE(t.log.Take().empty()) << "nothing was dirty, nothing is flushed";
}

// A fault that marked before the marks were taken may give W any time until it leaves its guard,
// though the page was writable by another fault. The guard stands for such a fault.
TEST(DirtyTrackingTest, F3_AHarvestWaitsForFaultsUnderWayBeforeItTakesW) {
  TestSpace t;
  ASSERT_TRUE(t.space->EnableDirtyLog({}).ok());
  t.Touch(5, kPrivate, Access::Write());
  std::atomic<bool> inside{false};
  std::atomic<bool> harvested{false};
  std::thread fault([&] {
    const EpochGuard guard;
    inside = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_TRUE(AccessOf(t, 5).write()) << "what is given from here on would not be taken";
    EXPECT_FALSE(harvested) << "it reports while W may come unseen";
  });
  while (!inside) std::this_thread::yield();
  EXPECT_EQ(Harvest(*t.space), Gfns{5});
  harvested = true;
  fault.join();
  EXPECT_FALSE(AccessOf(t, 5).write());
}

// A fault that saw no log may still publish a writable page; one that saw it may still mark.
TEST(DirtyTrackingTest, F3_TheLogComesAndGoesAfterFaultsUnderWay) {
  TestSpace t;
  for (const bool on : {true, false}) {
    std::atomic<bool> inside{false};
    std::atomic<bool> done{false};
    std::thread fault([&] {
      const EpochGuard guard;
      inside = true;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      EXPECT_FALSE(done);
    });
    while (!inside) std::this_thread::yield();
    EXPECT_TRUE(on ? t.space->EnableDirtyLog({}).ok() : t.space->DisableDirtyLog().ok());
    done = true;
    fault.join();
  }
}

TEST(DirtyTrackingTest, F3_AReadDirtiesNothing) {
  TestSpace t;
  ASSERT_TRUE(t.space->EnableDirtyLog({}).ok());
  t.Touch(5, kPrivate, Access::Read());
  EXPECT_FALSE(AccessOf(t, 5).write());
  EXPECT_TRUE(Harvest(*t.space).empty());
}

TEST(DirtyTrackingTest, A4_APageThatIsDirtiedThroughTwoAliasesIsReportedOnce) {
  TestSpace t;
  ASSERT_TRUE(t.space->EnableDirtyLog({}).ok());
  t.Touch(5, kPrivate, Access::Write());
  ASSERT_TRUE(t.Convert({Frames(5, 1)}, kShared).ok());
  EXPECT_TRUE(std::holds_alternative<Fixed>(t.Touch(5, kShared, Access::Write())));
  EXPECT_EQ(Harvest(*t.space), Gfns{5});
  EXPECT_FALSE(AccessOf(t, 5, kShared).write());
  EXPECT_TRUE(std::holds_alternative<Fixed>(t.Touch(5, kShared, Access::Write())));
  EXPECT_EQ(Harvest(*t.space), Gfns{5});
}

TEST(DirtyTrackingTest, F3_ManualClearWorksOnWordsOf64Pages) {
  TestSpace t;
  ASSERT_TRUE(t.space->EnableDirtyLog({.clear = kManual}).ok());
  for (uint64_t gfn : {1, 64, 65, 200}) t.Touch(gfn, kPrivate, Access::Write());
  EXPECT_EQ(Harvest(*t.space), (Gfns{1, 64, 65, 200}));
  EXPECT_EQ(Harvest(*t.space), (Gfns{1, 64, 65, 200})) << "a harvest clears nothing";
  EXPECT_TRUE(AccessOf(t, 64).write());
  ASSERT_TRUE(t.space->ClearDirty({Frames(64, 64), {1}}).ok());
  EXPECT_FALSE(AccessOf(t, 64).write());
  EXPECT_TRUE(AccessOf(t, 65).write());
  EXPECT_EQ(Harvest(*t.space), (Gfns{1, 65, 200}));
  EXPECT_TRUE(absl::IsInvalidArgument(t.space->ClearDirty({Frames(32, 64), {1}})));
  EXPECT_TRUE(absl::IsInvalidArgument(t.space->ClearDirty({Frames(64, 65), {1}})));
}

TEST(DirtyTrackingTest, ClearIsRefusedWhereHarvestsClear) {
  TestSpace t;
  ASSERT_TRUE(t.space->EnableDirtyLog({}).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(t.space->ClearDirty({Frames(0, 64), {1}})));
}

TEST(DirtyTrackingTest, F4_InitiallyAllSetSplitsAtTheFirstClear) {
  TestSpace t;
  for (uint64_t gfn : {0, 512}) ASSERT_TRUE(t.Fixes(gfn, kPrivate));
  t.log.Take();
  ASSERT_TRUE(t.space->EnableDirtyLog({.clear = kManual, .initially_all_set = true}).ok());
  EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k2M);
  EXPECT_TRUE(AccessOf(t, 5).write());
  EXPECT_TRUE(t.log.Take().empty()) << "enabling touches nothing";
  EXPECT_EQ(Harvest(*t.space).size(), 2048u);
  ASSERT_TRUE(t.space->ClearDirty({Frames(0, 64), {3}}).ok());
  EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k4K);
  EXPECT_EQ(t.LevelOf(512, kPrivate), Level::k2M);
  EXPECT_FALSE(AccessOf(t, 1).write());
  EXPECT_TRUE(AccessOf(t, 2).write());
  EXPECT_EQ(Harvest(*t.space).size(), 2046u);
}

TEST(DirtyTrackingTest, F3_ASlotThatDoesNotBeginAtAWordIsHarvestedFromTheWordOn) {
  TestSpace t({.add_slot = false});
  ASSERT_TRUE(t.space
                  ->AddMemslot({.range = Frames(70, 100),
                                .private_pfn = TestSpace::kPrivatePfn + 70,
                                .shared_pfn = {}})
                  .ok());
  ASSERT_TRUE(t.space->EnableDirtyLog({}).ok());
  t.Touch(70, kPrivate, Access::Write());
  t.Touch(169, kPrivate, Access::Write());
  EXPECT_EQ(Harvest(*t.space, Frames(64, 106)), (Gfns{70, 169}));
  EXPECT_TRUE(absl::IsInvalidArgument(t.space->HarvestDirty(Frames(64, 107)).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(t.space->HarvestDirty(Frames(0, 170)).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(t.space->HarvestDirty(Frames(70, 100)).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(t.space->HarvestDirty(Frames(640, 64)).status()));
}

TEST(DirtyTrackingTest, ASlotThatComesWhileTheLogIsOnIsDirtyAtFirstAndThenLogged) {
  TestSpace t({.add_slot = false});
  ASSERT_TRUE(t.space->EnableDirtyLog({}).ok());
  ASSERT_TRUE(t.space->AddMemslot(t.Slot()).ok());
  EXPECT_EQ(Harvest(*t.space).size(), 2048u) << "nobody has seen this memory";
  t.Touch(9, kPrivate, Access::Write());
  EXPECT_EQ(t.LevelOf(9, kPrivate), Level::k4K);
  EXPECT_EQ(Harvest(*t.space), Gfns{9});
}

TEST(DirtyTrackingTest, F3_AZapDoesNotTakeTheDirtyBitAway) {
  ProcessorVm vm({});
  ASSERT_TRUE(vm.space().EnableDirtyLog({.mode = DirtyLogMode::kDirtyBit}).ok());
  vm.Write(0, 5, kPrivate, 1);
  ASSERT_TRUE(vm.space().Zap(Frames(0, 2048)).ok());
  EXPECT_EQ(Harvest(vm.space()), Gfns{5});
}

TEST(DirtyTrackingTest, F3_AConversionIsDirtyThoughNobodyWrites) {
  TestSpace t;
  ASSERT_TRUE(t.space->EnableDirtyLog({}).ok());
  ASSERT_TRUE(t.Convert({Frames(7, 2)}, kShared).ok());
  EXPECT_EQ(Harvest(*t.space), (Gfns{7, 8})) << "the pages are others than before";
}

TEST(DirtyTrackingTest, D7_AHoleIsDirty) {
  TestSpace t;
  ASSERT_TRUE(t.space->EnableDirtyLog({}).ok());
  ASSERT_TRUE(t.space->PunchHole(Frames(7, 2), kPrivate).ok());
  ASSERT_TRUE(t.space->PunchHole(Frames(9, 2), kShared).ok());
  EXPECT_EQ(Harvest(*t.space), (Gfns{7, 8})) << "of the kind that the guest sees";
}

TEST(DirtyTrackingTest, F3_AFullProcessorLogLosesNothing) {
  ProcessorVm vm({});
  ASSERT_TRUE(vm.space().EnableDirtyLog({.mode = DirtyLogMode::kPml}).ok());
  for (uint64_t gfn = 0; gfn < 1500; ++gfn) vm.Write(gfn % 2, gfn, kPrivate, gfn);
  EXPECT_GT(vm.logs.spills, 0u);
  EXPECT_EQ(Harvest(vm.space()).size(), 1500u);
  vm.Write(0, 3, kPrivate, 1);
  EXPECT_EQ(Harvest(vm.space()), Gfns{3});
}

TEST(DirtyTrackingTest, F3_DirtyBitsCostNoFaults) {
  ProcessorVm vm({});
  ASSERT_TRUE(vm.space().EnableDirtyLog({.mode = DirtyLogMode::kDirtyBit}).ok());
  vm.Write(0, 5, kPrivate, 1);
  ASSERT_EQ(Harvest(vm.space()), Gfns{5});
  const auto again = vm.Write(0, 5, kPrivate, 2);
  ASSERT_TRUE(std::holds_alternative<ProcessorVm::Done>(again));
  EXPECT_EQ(std::get<ProcessorVm::Done>(again).faults, 0);
  EXPECT_EQ(Harvest(vm.space()), Gfns{5});
}

TEST(DirtyTrackingTest, F3_AVcpuWhoseRingIsSoftFullLeavesUntilItIsHarvested) {
  ProcessorVm vm({});
  ASSERT_TRUE(vm.space().EnableDirtyLog({.ring_entries = 130, .ring_vcpus = 2}).ok());
  uint64_t gfn = 0;
  while (std::holds_alternative<ProcessorVm::Done>(vm.Write(0, gfn, kPrivate, 1))) ++gfn;
  EXPECT_EQ(gfn, 130u - DirtyRing::kReserve);
  EXPECT_TRUE(std::holds_alternative<ProcessorVm::RingFull>(vm.Write(0, gfn, kPrivate, 1)));
  EXPECT_TRUE(std::holds_alternative<ProcessorVm::Done>(vm.Write(1, 900, kPrivate, 1)))
      << "another vCPU goes on";
  const auto taken = vm.space().HarvestDirtyRing(0, 1000);
  ASSERT_TRUE(taken.ok());
  EXPECT_EQ(taken->size(), gfn);
  EXPECT_TRUE(std::holds_alternative<ProcessorVm::Done>(vm.Write(0, gfn, kPrivate, 1)));
  EXPECT_EQ(*vm.space().HarvestDirtyRing(1, 1000), std::vector<Gfn>{Gfn(900)});
  EXPECT_TRUE(Harvest(vm.space()).empty()) << "what is in a ring is not in the bitmap";
  EXPECT_TRUE(absl::IsInvalidArgument(vm.space().HarvestDirtyRing(2, 1).status()));
}

TEST(DirtyTrackingTest, F3_ARingOfManyTablesIsHarvestedWithOneFlush) {
  TestSpace t;
  ASSERT_TRUE(t.space->EnableDirtyLog({.ring_entries = 200, .ring_vcpus = 1}).ok());
  for (uint64_t gfn : {5, 600, 1500, 5}) t.Touch(gfn, kPrivate, Access::Write());
  t.log.Take();
  EXPECT_EQ(*t.space->HarvestDirtyRing(0, 100), (std::vector<Gfn>{Gfn(5), Gfn(600), Gfn(1500)}));
  EXPECT_EQ(t.log.Take(), (Calls{"flush private 0x5+1496"}));
}

TEST(DirtyTrackingTest, F5_DisableMergesInPlaceWithOneFlushAGibibyte) {
  constexpr uint64_t kGib = uint64_t{1} << 18;
  TestSpace t({.frames = 2 * kGib, .pool_pages = 1200, .max_level = Level::k2M});
  for (uint64_t gfn : {uint64_t{0}, uint64_t{512}, kGib, kGib + 512 * 7}) {
    ASSERT_TRUE(t.Fixes(gfn, kPrivate));
  }
  ASSERT_TRUE(t.space->EnableDirtyLog({}).ok());
  const size_t split = t.space->stats().table_pages;
  t.log.Take();
  const auto disabled = t.space->DisableDirtyLog();
  ASSERT_TRUE(disabled.ok()) << disabled.status();
  EXPECT_EQ(disabled->collapsed, 4u);
  EXPECT_EQ(t.log.Take(), (Calls{"flush private 0x0+1024", "flush private 0x40000+4096"}));
  EXPECT_EQ(t.space->stats().collapses_dirty_log, 4u);
  EXPECT_EQ(t.space->stats().table_pages, split - 4);
  EXPECT_EQ(AccessOf(t, 5), Access::All());
  EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k2M);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(DirtyTrackingTest, F5_NoAccessOfARunningGuestFaultsWhilePagesAreMerged) {
  ProcessorVm vm({});
  for (uint64_t gfn = 0; gfn < 2048; gfn += 512) vm.Write(0, gfn, kPrivate, 1);
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> faults{0};
  std::thread guest([&] {
    for (uint64_t i = 0; !stop; ++i) {
      const auto read = vm.Touch(1, Gfn(i * 37 % 2048), kPrivate, Access::Read());
      faults += static_cast<uint64_t>(std::get<ProcessorVm::Done>(read).faults);
    }
  });
  for (int round = 0; round < 20; ++round) {
    EXPECT_TRUE(vm.space().EnableDirtyLog({.mode = DirtyLogMode::kDirtyBit}).ok());
    const auto disabled = vm.space().DisableDirtyLog();
    EXPECT_TRUE(disabled.ok() && disabled->collapsed == 4);
  }
  stop = true;
  guest.join();
  EXPECT_EQ(faults, 0u);
}

TEST(DirtyTrackingTest, OptionsThatDoNotGoTogetherAreRefusedAndChangeNothing) {
  TestSpace t({.capabilities = {.accessed_dirty = false}});
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  t.log.Take();
  const auto code = [&](const DirtyLogOptions& options) {
    return t.space->EnableDirtyLog(options).status().code();
  };
  EXPECT_EQ(code({.initially_all_set = true}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.mode = DirtyLogMode::kDirtyBit}), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(code({.mode = DirtyLogMode::kPml}), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(code({.clear = kManual, .ring_entries = 256, .ring_vcpus = 1}),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.ring_entries = 64, .ring_vcpus = 1}), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(t.space->dirty_log_enabled());
  EXPECT_EQ(t.space->DisableDirtyLog().status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(t.space->HarvestDirty(Frames(0, 64)).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k2M);
  EXPECT_TRUE(t.log.Take().empty());
}

TEST(DirtyTrackingTest, F3_AnExternalTableThatFailsPutsTheMarksBack) {
  TestSpace t({.max_level = Level::k4K, .external = true});
  EXPECT_EQ(t.space->EnableDirtyLog({}).status().code(), absl::StatusCode::kFailedPrecondition);
  t.external_private.can_withhold_write = t.external_shared.can_withhold_write = true;
  t.external_private.fail_withholds = 1;
  EXPECT_TRUE(absl::IsInternal(t.space->EnableDirtyLog({}).status()));
  EXPECT_FALSE(t.space->dirty_log_enabled()) << "an error changes nothing";
  ASSERT_TRUE(t.space->EnableDirtyLog({}).ok());
  EXPECT_TRUE(std::holds_alternative<Fixed>(t.Touch(5, kPrivate, Access::Write())));
  t.external_private.fail_withholds = 1;
  EXPECT_FALSE(t.space->HarvestDirty(Frames(0, 2048)).ok());
  t.log.Take();
  EXPECT_EQ(Harvest(*t.space), Gfns{5});
  EXPECT_TRUE(Withheld(t, Frames(0, 2048))) << "the engine's leaf lost W when it failed";
}

TEST(DirtyTrackingTest, F3_AnExternalTableThatFailsLeavesWhatAClearOrARingTookInTheLog) {
  for (const bool ring : {false, true}) {
    TestSpace t({.max_level = Level::k4K, .external = true});
    t.external_private.can_withhold_write = t.external_shared.can_withhold_write = true;
    ASSERT_TRUE(t.space
                    ->EnableDirtyLog(ring ? DirtyLogOptions{.ring_entries = 130, .ring_vcpus = 1}
                                          : DirtyLogOptions{.clear = kManual})
                    .ok());
    ASSERT_TRUE(std::holds_alternative<Fixed>(t.Touch(5, kPrivate, Access::Write())));
    t.external_private.fail_withholds = 1;
    if (ring) {
      EXPECT_FALSE(t.space->HarvestDirtyRing(0, 100).ok());
    } else {
      EXPECT_FALSE(t.space->ClearDirty({Frames(0, 64), {uint64_t{1} << 5}}).ok());
    }
    EXPECT_EQ(Harvest(*t.space), Gfns{5}) << (ring ? "ring" : "clear");
  }
}

TEST(DirtyTrackingTest, F4_AnExternalTableIsProtectedThoughItsLargeLeafLostWBefore) {
  TestSpace t({.max_level = Level::k2M, .external = true});
  t.external_private.can_withhold_write = t.external_shared.can_withhold_write = true;
  ASSERT_TRUE(t.Fixes(0, kPrivate));
  ASSERT_TRUE(
      t.space->EnableDirtyLog({.clear = kManual, .initially_all_set = true, .eager_split = false})
          .ok());
  for (const uint64_t first : {0, 64}) {
    t.log.Take();
    ASSERT_TRUE(t.space->ClearDirty({Frames(first, 64), {~uint64_t{0}}}).ok());
    EXPECT_EQ(t.LevelOf(first, kPrivate), Level::k2M) << "nothing has split it";
    EXPECT_TRUE(Withheld(t, Frames(first, 64)));
  }
}

}  // namespace
}  // namespace twinroot::mmu
