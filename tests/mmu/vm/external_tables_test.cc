// Roots with an external table behind them, seen through the facade.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "tests/fakes/test_space.h"

namespace twinroot::mmu {
namespace {

constexpr auto kPrivate = MemoryKind::kPrivate;
constexpr auto kShared = MemoryKind::kShared;
using Calls = std::vector<std::string>;

TestSpaceOptions External(Level level = Level::k1G) {
  return {.max_level = level, .external = true};
}

TEST(ExternalTablesTest, E1_TheSlotIsFrozenWhileTheExternalTableIsSet) {
  TestSpace t(External());
  uint64_t during = 0;
  FaultOutcome meanwhile = Fixed{Level::k4K};
  t.external_private.on_set = [&] {
    // Another vCPU: a walker that meets a frozen entry retries, and calls nobody.
    std::thread([&] {
      during = t.space->Translate(Gpa(0x5000), kPrivate)->steps.back().entry;
      meanwhile = t.Touch(6, kPrivate);
    }).join();
  };
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  EXPECT_EQ(EptEntry(during), EptEntry((uint64_t{1} << 62) | (uint64_t{0x5A} << 52)));
  EXPECT_TRUE(std::holds_alternative<Retry>(meanwhile));
  EXPECT_EQ(t.log.Take(), (Calls{"set private 0x0+512"}));
  EXPECT_TRUE(t.IsMapped(5, kPrivate));
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(ExternalTablesTest, E1_AFailingSetLeavesNoLeafAndTablesThatReclaimFinds) {
  TestSpace t(External(Level::k4K));
  const uint64_t tables = t.space->stats().table_pages;
  t.external_private.fail_sets = 1;
  const FaultOutcome outcome = t.Touch(5, kPrivate);
  ASSERT_TRUE(std::holds_alternative<Failed>(outcome));
  EXPECT_TRUE(absl::IsResourceExhausted(std::get<Failed>(outcome).status));
  const Translation walk = *t.space->Translate(Gpa(0x5000), kPrivate);
  EXPECT_FALSE(walk.mapped);
  EXPECT_EQ(walk.steps.back().entry, 0u) << "the slot is as it was";
  // Tables that were made on the way may stay, linked and empty: they are counted and no more.
  EXPECT_EQ(t.pool.stats().used, t.space->stats().table_pages);
  EXPECT_LE(t.space->stats().table_pages, tables + 3);
  EXPECT_EQ(t.space->bugged(), "");
  ASSERT_TRUE(t.space->Audit().ok()) << t.space->Audit();
  EXPECT_EQ(t.space->ReclaimTables(100), t.space->stats().table_pages - tables);
  EXPECT_EQ(t.space->stats().table_pages, tables);
  EXPECT_EQ(t.pool.stats().used, tables);
  EXPECT_TRUE(t.Fixes(5, kPrivate));
}

TEST(ExternalTablesTest, E1_ARefusedRefreshLeavesTheLeafAsItWas) {
  TestSpace t(External());
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  const uint64_t before = t.space->Translate(Gpa(0x5000), kPrivate)->steps.back().entry;
  t.external_private.fail_sets = 1;
  EXPECT_TRUE(std::holds_alternative<Failed>(t.Touch(6, kPrivate)));
  EXPECT_EQ(t.space->Translate(Gpa(0x5000), kPrivate)->steps.back().entry, before);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(ExternalTablesTest, E1_AChangeWaitsForASetThatIsUnderWay) {
  TestSpace t(External());
  std::thread change;
  std::atomic<bool> changed{false};
  t.external_private.on_set = [&] {
    change = std::thread([&] {
      EXPECT_TRUE(t.Convert({Frames(5, 1)}, kShared).ok());
      changed = true;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_FALSE(changed);
  };
  EXPECT_TRUE(t.Fixes(5, kPrivate));
  change.join();
  EXPECT_FALSE(t.IsMapped(5, kPrivate));
  EXPECT_EQ(t.external_private.frames(), 0u);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(ExternalTablesTest, E1_AZapOfWholeTablesWaitsForASetThatIsUnderWay) {
  TestSpace t({.frames = 16384, .max_level = Level::k2M, .external = true});
  ASSERT_TRUE(t.Fixes(600, kPrivate));
  std::thread change;
  std::atomic<bool> changed{false};
  t.external_private.on_set = [&] {
    change = std::thread([&] {
      EXPECT_TRUE(t.space->Zap(Frames(0, 16384)).ok());
      changed = true;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_FALSE(changed);
  };
  EXPECT_TRUE(t.Fixes(5, kPrivate));
  change.join();
  t.external_private.on_set = nullptr;
  EXPECT_FALSE(t.IsMapped(5, kPrivate));
  EXPECT_EQ(t.external_private.frames(), 0u);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(ExternalTablesTest, E1_AFailingSetLeavesTheNeighboursAlone) {
  TestSpace t(External(Level::k4K));
  ASSERT_TRUE(t.Fixes(4, kPrivate));
  t.external_private.fail_sets = 1;
  ASSERT_TRUE(std::holds_alternative<Failed>(t.Touch(5, kPrivate)));
  EXPECT_TRUE(t.IsMapped(4, kPrivate));
  EXPECT_TRUE(t.external_private.Holds(Gfn(4)));
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(ExternalTablesTest, E1_OneSetForEachLeafWhateverRaces) {
  for (int round = 0; round < 50; ++round) {
    TestSpace t(External(Level::k4K));
    std::vector<std::thread> vcpus;
    std::atomic<int> fixed{0};
    for (int i = 0; i < 4; ++i) {
      vcpus.emplace_back([&] {
        for (uint64_t gfn = 0; gfn < 16; ++gfn) {
          if (t.Fixes(gfn, kPrivate)) ++fixed;
        }
      });
    }
    for (std::thread& vcpu : vcpus) vcpu.join();
    EXPECT_EQ(fixed, 16);
    EXPECT_EQ(t.external_private.frames(), 16u);
    EXPECT_FALSE(t.external_private.contradiction);
    // What is not the one Set that made a leaf is a refresh by a spurious fault.
    EXPECT_EQ(t.log.Take().size(), 16 + t.space->stats().faults_spurious);
    ASSERT_TRUE(t.space->Audit().ok()) << t.space->Audit();
  }
}

TEST(ExternalTablesTest, E1_ALeafThatTheOwnerDroppedIsSetAgain) {
  TestSpace t(External());
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  t.external_private.DropAll();
  EXPECT_TRUE(std::holds_alternative<Spurious>(t.Touch(5, kPrivate)));
  EXPECT_TRUE(t.external_private.Holds(Gfn(5)));
  EXPECT_EQ(t.log.Take(), (Calls{"set private 0x0+512", "set private 0x0+512"}));
}

TEST(ExternalTablesTest, E1_ALargeLeafThatALogLeftWithoutWGetsItBackWithAnyFault) {
  TestSpace t(External(Level::k2M));
  t.external_private.can_withhold_write = t.external_shared.can_withhold_write = true;
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  ASSERT_TRUE(t.space->EnableDirtyLog({.eager_split = false}).ok());
  t.Touch(5, kPrivate);
  EXPECT_FALSE(t.external_private.last_access.write()) << "the log is on";
  ASSERT_TRUE(t.space->DisableDirtyLog().ok());
  t.Touch(5, kPrivate);
  EXPECT_TRUE(t.external_private.last_access.write());
  EXPECT_TRUE(t.space->Translate(Gpa(0x5000), kPrivate)->access.write());
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(ExternalTablesTest, E2_RemovalIsFlushThenRemoveThenDiscard) {
  TestSpace t(External(Level::k4K));
  for (uint64_t gfn = 4; gfn < 8; ++gfn) ASSERT_TRUE(t.Fixes(gfn, kPrivate));
  ASSERT_TRUE(t.Fixes(20, kPrivate));
  t.log.Take();
  ASSERT_TRUE(t.Convert({Frames(4, 3), Frames(20, 1)}, kShared).ok());
  // Contiguous leaves go in one call.
  EXPECT_EQ(t.log.Take(),
            (Calls{"flush private 0x4+17", "remove private 0x4+3", "remove private 0x14+1",
                   "discard private 0x4+3", "discard private 0x14+1"}));
  EXPECT_EQ(t.external_private.frames(), 1u);
  EXPECT_TRUE(t.external_private.Holds(Gfn(7)));
}

TEST(ExternalTablesTest, E2_AZapOfWholeTablesRemovesEveryLeaf) {
  TestSpace t({.frames = 16384, .max_level = Level::k4K, .external = true});
  for (const uint64_t gfn : {5, 700, 16383}) ASSERT_TRUE(t.Fixes(gfn, kPrivate));
  EXPECT_TRUE(t.space->Zap(Frames(0, 16384)).ok());
  EXPECT_EQ(t.external_private.frames(), 0u);
}

TEST(ExternalTablesTest, E2_ARemovalThatFailsOnceIsTriedAgain) {
  TestSpace t(External());
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  t.external_private.fail_removes = 1;
  EXPECT_TRUE(t.Convert({Frames(5, 1)}, kShared).ok());
  EXPECT_EQ(t.space->bugged(), "");
  EXPECT_EQ(t.external_private.frames(), 0u);
}

TEST(ExternalTablesTest, E2_ARemovalThatFailsTwiceBugsThisVm) {
  TestSpace t(External());
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  t.pages.Mark(Gfn(5), kPrivate) = 42;
  t.external_private.fail_removes = 2;
  EXPECT_TRUE(absl::IsInternal(t.Convert({Frames(5, 1)}, kShared).status()));
  EXPECT_NE(t.space->bugged(), "");
  // Somebody may still use the page: it must not be reused, and the attribute still says so.
  EXPECT_EQ(t.pages.Mark(Gfn(5), kPrivate), 42u);
  EXPECT_EQ(t.space->GetMemoryAttributes().size(), 1u);
  EXPECT_TRUE(std::holds_alternative<Failed>(t.Touch(6, kPrivate)));
}

struct BugList : BugSink {
  void ReportBug(const std::string& what) override { bugs.push_back(what); }
  std::vector<std::string> bugs;
};

TEST(ExternalTablesTest, E2_WhoeverRunsTheVmHearsOfTheFirstBug) {
  BugList list;
  TestSpaceOptions options = External();
  options.bugs = &list;
  TestSpace t(options);
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  ASSERT_TRUE(t.Fixes(1000, kPrivate));
  t.external_private.fail_removes = 1;
  ASSERT_TRUE(t.Convert({Frames(5, 1)}, kShared).ok());
  EXPECT_EQ(list.bugs, std::vector<std::string>{});
  t.external_private.fail_removes = 4;
  EXPECT_FALSE(t.Convert({Frames(1000, 1)}, kShared).ok());
  EXPECT_EQ(list.bugs, std::vector<std::string>{t.space->bugged()});
  EXPECT_FALSE(t.Convert({Frames(1000, 1)}, kShared).ok());
  EXPECT_EQ(list.bugs.size(), 1u);
}

TEST(ExternalTablesTest, E3_ZappingSharedMappingsDoesNotTouchThePrivateRoot) {
  TestSpace t(External());
  ASSERT_TRUE(t.Convert({Frames(512, 512)}, kShared).ok());
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  ASSERT_TRUE(t.Fixes(512, kShared));
  t.log.Take();
  ASSERT_TRUE(t.space->PunchHole(Frames(0, 2048), kShared).ok());
  for (const std::string& call : t.log.Take()) {
    EXPECT_EQ(call.find("private"), std::string::npos) << call;
  }
  EXPECT_TRUE(t.IsMapped(5, kPrivate));
  EXPECT_TRUE(t.external_private.Holds(Gfn(5)));
}

}  // namespace
}  // namespace twinroot::mmu
