// F8: large pages are not executable, a fetch makes them small, a recovery pass large again.
#include <gtest/gtest.h>

#include "tests/fakes/processor_vm.h"

namespace twinroot::mmu {
namespace {

constexpr auto kPrivate = MemoryKind::kPrivate;
constexpr auto kFetch = Access::Fetch();

TestSpaceOptions Mitigated() {
  TestSpaceOptions options;
  options.nx_huge_pages = true;
  return options;
}
Access AccessOf(TestSpace& t, uint64_t gfn) {
  return t.space->Translate(Gpa(gfn << kPageShift), kPrivate)->access;
}

TEST(NxMitigationTest, F8_LargePagesAreNotExecutableUntilAFetchSplitsThem) {
  TestSpace t(Mitigated());
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k2M);
  EXPECT_EQ(AccessOf(t, 5), Access::Read() | Access::Write());
  ASSERT_TRUE(std::holds_alternative<Spurious>(t.Touch(5, kPrivate, kFetch)));
  EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k4K);
  EXPECT_EQ(AccessOf(t, 5), Access::All()) << "B10";
  EXPECT_EQ(AccessOf(t, 6), Access::All());
  EXPECT_EQ(t.space->stats().splits_fault, 1u);
}

TEST(NxMitigationTest, F8_AFirstFetchMapsASmallPage) {
  TestSpace t(Mitigated());
  ASSERT_TRUE(std::holds_alternative<Fixed>(t.Touch(5, kPrivate, kFetch)));
  EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k4K);
  EXPECT_EQ(AccessOf(t, 5), Access::All());
}

TEST(NxMitigationTest, F8_RecoveryMergesTheOldestInPlaceAndCounts) {
  TestSpace t(Mitigated());
  for (uint64_t gfn : {1500, 3, 4, 600}) t.Touch(gfn, kPrivate, kFetch);
  t.log.Take();
  auto recovered = t.space->RecoverNxHugePages(2);
  ASSERT_TRUE(recovered.ok()) << recovered.status();
  EXPECT_EQ(recovered->collapsed, 2u);
  EXPECT_EQ(t.LevelOf(1500, kPrivate), Level::k2M);
  EXPECT_EQ(t.LevelOf(3, kPrivate), Level::k2M);
  EXPECT_FALSE(AccessOf(t, 3).fetch());
  EXPECT_EQ(t.LevelOf(600, kPrivate), Level::k4K);
  EXPECT_EQ(t.log.Take(),
            (std::vector<std::string>{"flush private 0x400+512", "flush private 0x0+512"}));
  EXPECT_EQ(t.space->RecoverNxHugePages(100)->collapsed, 1u);
  EXPECT_EQ(t.space->RecoverNxHugePages(100)->collapsed, 0u);
  EXPECT_EQ(t.space->stats().collapses_nx, 3u);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(NxMitigationTest, F8_WhatIsFetchedFromAgainIsSplitAndRecordedAgain) {
  ProcessorVm vm(Mitigated());
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(std::holds_alternative<ProcessorVm::Done>(vm.Touch(0, Gfn(5), kPrivate, kFetch)));
    EXPECT_EQ(vm.t().LevelOf(5, kPrivate), Level::k4K);
    EXPECT_EQ(vm.space().RecoverNxHugePages(10)->collapsed, 1u);
  }
  EXPECT_EQ(vm.space().stats().collapses_nx, 3u);
}

TEST(NxMitigationTest, F8_PagesThatAreSmallForOtherReasonsAreNotRecorded) {
  TestSpace t([] {
    TestSpaceOptions options = Mitigated();
    options.max_level = Level::k4K;
    return options;
  }());
  t.Touch(5, kPrivate, kFetch);
  t.pages.max_level = Level::k2M;
  EXPECT_EQ(t.space->RecoverNxHugePages(10)->collapsed, 0u);
  EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k4K);
}

TEST(NxMitigationTest, F8_UnderTheDirtyLogTheRecordWaits) {
  TestSpace t(Mitigated());
  t.Touch(5, kPrivate, kFetch);
  ASSERT_TRUE(t.space->EnableDirtyLog({}).ok());
  EXPECT_EQ(t.space->RecoverNxHugePages(10)->collapsed, 0u);
  EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k4K);
  ASSERT_TRUE(t.space->DisableDirtyLog().ok());
  EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k2M) << "the log's end makes it large";
}

TEST(NxMitigationTest, F8_LeavesOfTheExecuteOnlyAliasAreSmallAndStaySo) {
  TestSpaceOptions options = Mitigated();
  options.guest_maxphyaddr = 44;
  options.execute_only_bit = 45;
  TestSpace t(options);
  ASSERT_TRUE(std::holds_alternative<Fixed>(t.TouchExecuteOnly(5, kPrivate, kFetch)));
  const auto level = [&] {
    return t.space->Translate(Gpa(0x5000), kPrivate, /*execute_only=*/true)->level;
  };
  EXPECT_EQ(level(), Level::k4K);
  EXPECT_EQ(t.space->RecoverPages(Frames(0, 2048))->collapsed, 0u)
      << "a large page that is executable is what the mitigation forbids";
  EXPECT_EQ(level(), Level::k4K);
}

TEST(NxMitigationTest, F8_RootsWithAnExternalTableAreNotMitigated) {
  TestSpaceOptions options = Mitigated();
  options.external = true;
  TestSpace t(options);
  ASSERT_TRUE(std::holds_alternative<Fixed>(t.Touch(5, kPrivate, kFetch)));
  EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k2M);
  EXPECT_EQ(AccessOf(t, 5), Access::All());
}

}  // namespace
}  // namespace twinroot::mmu
