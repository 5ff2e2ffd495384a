// Everything goes at once, and its tables later.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "tests/mmu/vm/slots_fixture.h"
#include "tests/properties/guest.h"

namespace twinroot::mmu {
namespace {

constexpr auto kPrivate = MemoryKind::kPrivate;
constexpr auto kShared = MemoryKind::kShared;

// Both kinds mapped in three levels.
void Fill(SlotSpace& t) {
  ASSERT_TRUE(t.Add(0, 4096, 0).ok());
  ASSERT_TRUE(t.Convert({Frames(512, 512), Frames(1030, 3)}, kShared).ok());
  for (const uint64_t gfn : {5, 1024, 1029, 1600, 2050}) ASSERT_TRUE(t.Fixes(gfn, kPrivate));
  for (const uint64_t gfn : {600, 1030, 1032}) ASSERT_TRUE(t.Fixes(gfn, kShared));
}

TEST(ZapAllTest, F7_NothingIsMappedAndAttributesStay) {
  SlotSpace t;
  Fill(t);
  ASSERT_EQ(t.Leaves(), 8u);
  t.log.Take();
  ASSERT_TRUE(t.space->ZapAll().ok());
  EXPECT_EQ(t.log.Take(), (std::vector<std::string>{"flush all"}));
  for (const uint64_t gfn : {5, 1024, 2050}) EXPECT_FALSE(t.IsMapped(gfn, kPrivate));
  for (const uint64_t gfn : {600, 1030}) EXPECT_FALSE(t.IsMapped(gfn, kShared));
  EXPECT_EQ(t.Leaves(), 0u);
  const AddressSpaceStats stats = t.space->stats();
  EXPECT_EQ(stats.flushes_full, 1u);
  EXPECT_EQ(stats.zap_generation, 1u);
  EXPECT_EQ(stats.shared_frames_attribute, 515u);
  EXPECT_TRUE(t.Fixes(5, kPrivate));
  EXPECT_EQ(t.Leaves(), 1u);
}

TEST(ZapAllTest, F7_TablesWaitAndAreTakenDownSomeAtATime) {
  SlotSpace t;
  Fill(t);
  const uint64_t tables = t.space->stats().table_pages;
  ASSERT_GT(tables, 6u);
  ASSERT_TRUE(t.space->ZapAll().ok());
  // They still take their pages of the budget.
  EXPECT_EQ(t.space->stats().table_pages, tables);
  EXPECT_EQ(t.pool.stats().used, tables);
  EXPECT_EQ(t.space->stats().detached_tables, 2u);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
  EXPECT_EQ(t.space->ReclaimTables(3), 3u);
  EXPECT_EQ(t.space->stats().table_pages, tables - 3);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
  EXPECT_EQ(t.space->ReclaimTables(1000), tables - 2 - 3);
  EXPECT_EQ(t.space->ReclaimTables(1000), 0u);
  EXPECT_EQ(t.space->stats().table_pages, 2u);
  EXPECT_EQ(t.pool.stats().used, 2u);
  EXPECT_EQ(t.space->stats().detached_tables, 0u);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(ZapAllTest, OneRootWithBothAliasesIsCountedByAlias) {
  // The shared bit inside one 512 GiB entry: one table holds leaves of both kinds.
  SlotSpace t({.shared_bit = 36, .arrangement = RootArrangement::kOneRoot});
  Fill(t);
  ASSERT_TRUE(t.space->ZapAll().ok());
  EXPECT_EQ(t.Leaves(), 0u);
  ASSERT_TRUE(t.Fixes(600, kShared));
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
  while (t.space->ReclaimTables(1) != 0) {
    ASSERT_TRUE(t.space->Audit().ok()) << t.space->Audit();
  }
  EXPECT_EQ(t.Leaves(), 1u);
}

TEST(ZapAllTest, SeveralGenerationsMayWaitTogether) {
  SlotSpace t;
  Fill(t);
  for (uint64_t round = 1; round <= 3; ++round) {
    ASSERT_TRUE(t.space->ZapAll().ok());
    EXPECT_EQ(t.space->stats().zap_generation, round);
    ASSERT_TRUE(t.Fixes(5, kPrivate));
    ASSERT_TRUE(t.Fixes(600, kShared));
    EXPECT_EQ(t.Leaves(), 2u);
    ASSERT_TRUE(t.space->Audit().ok()) << t.space->Audit();
  }
  EXPECT_EQ(t.space->stats().detached_tables, 6u);
  while (t.space->ReclaimTables(2) != 0) {
  }
  EXPECT_EQ(t.Leaves(), 2u);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(ZapAllTest, F10_AFaultThatFindsNoTableTakesDownWhatWaits) {
  SlotSpace t({.pool_pages = 8, .max_level = Level::k4K});
  ASSERT_TRUE(t.Add(0, 4096, 0).ok());
  for (const uint64_t gfn : {0, 512, 1024, 1536}) ASSERT_TRUE(t.Fixes(gfn, kPrivate));
  ASSERT_EQ(t.pool.stats().used, 8u);
  ASSERT_TRUE(std::holds_alternative<Failed>(t.Touch(2048, kPrivate)));
  ASSERT_TRUE(t.space->ZapAll().ok());
  EXPECT_TRUE(t.Fixes(2048, kPrivate));
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

// The budget has no table beyond those that wait, and a large leaf is to be split.
TEST(ZapAllTest, B9_ASplitTakesDownWhatWaitsBeforeItGivesUp) {
  const auto request = [](SlotSpace& t) {
    EXPECT_EQ(t.space->SplitPages(Frames(0, 512), Level::k4K)->kept, 0u);
  };
  const auto log = [](SlotSpace& t) { EXPECT_EQ(t.space->EnableDirtyLog({})->kept, 0u); };
  const auto convert = [](SlotSpace& t) { EXPECT_TRUE(t.Convert({Frames(7, 1)}, kShared).ok()); };
  for (const std::function<void(SlotSpace&)>& split :
       std::vector<std::function<void(SlotSpace&)>>{request, log, convert}) {
    SlotSpace t({.pool_pages = 6, .max_level = Level::k2M});
    ASSERT_TRUE(t.Add(0, 4096, 0).ok());
    ASSERT_TRUE(t.Fixes(5, kPrivate));
    ASSERT_TRUE(t.space->ZapAll().ok());
    ASSERT_TRUE(t.Fixes(5, kPrivate));
    ASSERT_EQ(t.space->stats().leaves[0][1], 1u);
    ASSERT_EQ(t.pool.stats().used, 6u) << "two roots, two tables that wait, two in use";
    split(t);
    EXPECT_EQ(t.space->stats().splits_kept, 0u);
    EXPECT_TRUE(t.IsMapped(5, kPrivate)) << "no table was found, so the leaf went whole";
    EXPECT_EQ(t.space->Translate(Gpa(5 << kPageShift), kPrivate)->level, Level::k4K);
    EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
  }
}

TEST(ZapAllTest, E2_ExternalTablesAreEmptyWhenItReturns) {
  SlotSpace t({.external = true});
  Fill(t);
  ASSERT_GT(t.external_private.frames(), 0u);
  ASSERT_GT(t.external_shared.frames(), 0u);
  t.log.Take();
  ASSERT_TRUE(t.space->ZapAll().ok());
  EXPECT_EQ(t.external_private.frames(), 0u);
  EXPECT_EQ(t.external_shared.frames(), 0u);
  EXPECT_EQ(t.log.Take(), (std::vector<std::string>{"flush all", "remove private 0x0+4096",
                                                    "remove shared 0x0+4096"}));
}

TEST(ZapAllTest, E2_AnExternalTableThatKeepsSomethingBugsTheVm) {
  SlotSpace t({.external = true});
  Fill(t);
  t.external_shared.fail_removes = 2;
  EXPECT_TRUE(absl::IsInternal(t.space->ZapAll()));
  EXPECT_NE(t.space->bugged(), "");
}

TEST(ZapAllTest, AFaultInTheMiddleOfAnExternalSetIsZappedToo) {
  SlotSpace t({.external = true});
  ASSERT_TRUE(t.Add(0, 512, 0).ok());
  std::thread zapper;
  t.external_private.on_set = [&] {
    t.external_private.on_set = nullptr;
    const uint64_t before = t.space->stats().invalidations;
    zapper = std::thread([&] { EXPECT_TRUE(t.space->ZapAll().ok()); });
    while (t.space->stats().invalidations == before) std::this_thread::yield();
  };
  EXPECT_TRUE(t.Fixes(5, kPrivate));
  zapper.join();
  EXPECT_EQ(t.external_private.frames(), 0u);
  EXPECT_EQ(t.Leaves(), 0u);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(ZapAllTest, AVmThatIsDestroyedWithTablesWaitingGivesThemAllBack) {
  SlotSpace t;
  Fill(t);
  ASSERT_TRUE(t.space->ZapAll().ok());
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  t.space.reset();
  EXPECT_EQ(t.pool.stats().used, 0u);
}

TEST(ZapAllTest, F7_NoProcessorUsesAnOldTranslation) {
  for (const bool deaf : {false, true}) {
    ProcessorGuest guest({}, deaf);
    GuestAddressSpace& space = *guest.t().space;
    ASSERT_TRUE(std::holds_alternative<Touched>(guest.Access(0, Gfn(5), kPrivate, 77)));
    const AddressSpaceStats before = space.stats();
    ASSERT_TRUE(space.ZapAll().ok());
    ASSERT_TRUE(std::holds_alternative<Touched>(guest.Access(0, Gfn(5), kPrivate, std::nullopt)));
    // The processor had to walk and fault again, unless nobody told it.
    EXPECT_EQ(space.stats().faults_fixed - before.faults_fixed, deaf ? 0u : 1u);
  }
}

TEST(ZapAllTest, WhatAProcessorMarkedDirtyIsHarvestedAfterwards) {
  ProcessorGuest guest({}, /*deaf=*/false);
  GuestAddressSpace& space = *guest.t().space;
  ASSERT_TRUE(space.EnableDirtyLog({.mode = DirtyLogMode::kDirtyBit}).ok());
  ASSERT_TRUE(std::holds_alternative<Touched>(guest.Access(0, Gfn(5), kPrivate, 77)));
  ASSERT_TRUE(std::holds_alternative<Touched>(guest.Access(0, Gfn(9), kPrivate, std::nullopt)));
  ASSERT_TRUE(space.ZapAll().ok());
  const auto dirty = space.HarvestDirty(Frames(0, 64));
  ASSERT_TRUE(dirty.ok()) << dirty.status();
  EXPECT_TRUE(Contains(*dirty, 5));
  EXPECT_FALSE(Contains(*dirty, 9));
}

TEST(ZapAllTest, FaultsBesideZapsAndReclaim) {
  SlotSpace t({.pool_pages = 24, .max_level = Level::k2M});
  ASSERT_TRUE(t.Add(0, 4096, 0).ok());
  ASSERT_TRUE(t.Convert({Frames(1, 1), Frames(600, 3)}, kShared).ok());
  std::atomic<bool> stop{false};
  std::atomic<int> failed{0};
  std::vector<std::thread> vcpus;
  for (int i = 0; i < 3; ++i) {
    vcpus.emplace_back([&, i] {
      for (uint64_t n = i; !stop; ++n) {
        const uint64_t gfn = n * 37 % 4096;
        if (std::holds_alternative<Failed>(t.Touch(gfn, static_cast<MemoryKind>(n % 2)))) ++failed;
      }
    });
  }
  for (int round = 0; round < 300; ++round) {
    ASSERT_TRUE(t.space->ZapAll().ok());
    if (round % 3 == 0) t.space->ReclaimTables(1);
    if (round % 50 == 0) {
      ASSERT_TRUE(t.space->Audit().ok()) << t.space->Audit();
    }
  }
  stop = true;
  for (std::thread& vcpu : vcpus) vcpu.join();
  EXPECT_EQ(failed, 0);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

}  // namespace
}  // namespace twinroot::mmu
