// F6: which pages were accessed, with accessed flags and without; the guest runs on processors.
#include <gtest/gtest.h>

#include "tests/fakes/processor_vm.h"

namespace twinroot::mmu {
namespace {

constexpr auto kPrivate = MemoryKind::kPrivate;
constexpr auto kShared = MemoryKind::kShared;

std::vector<uint64_t> Age(GuestAddressSpace& space, GfnRange range = Frames(0, 2048)) {
  const auto aged = space.TestAndClearAccessed(range);
  EXPECT_TRUE(aged.ok()) << aged.status();
  std::vector<uint64_t> gfns;
  for (uint64_t i = 0; aged.ok() && i < range.count; ++i) {
    if (aged->words[i / 64] >> i % 64 & 1) gfns.push_back(range.first.value + i);
  }
  return gfns;
}
int FaultsOf(const ProcessorVm::Outcome& outcome) {
  return std::get<ProcessorVm::Done>(outcome).faults;
}
using Gfns = std::vector<uint64_t>;

class AgingTest : public testing::TestWithParam<bool> {
 protected:
  AgingTest()
      : vm_({.guest_maxphyaddr = 44,
             .execute_only_bit = 45,
             .capabilities = {.accessed_dirty = GetParam()},
             .max_level = Level::k4K}) {}
  bool flags() const { return GetParam(); }
  void Read(uint64_t gfn, MemoryKind kind = kPrivate) {
    // A processor that still has the translation sets no flag.
    if (flags()) vm_.space().Zap(Frames(gfn, 1)).IgnoreError();
    ASSERT_TRUE(
        std::holds_alternative<ProcessorVm::Done>(vm_.Touch(0, Gfn(gfn), kind, Access::Read())));
  }
  ProcessorVm vm_;
};

TEST_P(AgingTest, F6_PagesAreReportedOnceForEachRoundTheyAreAccessedIn) {
  for (uint64_t gfn : {3, 64, 700}) Read(gfn);
  EXPECT_EQ(Age(vm_.space()), (Gfns{3, 64, 700}));
  EXPECT_TRUE(Age(vm_.space()).empty());
  Read(64);
  EXPECT_EQ(Age(vm_.space()), (Gfns{64}));
  EXPECT_TRUE(vm_.space().Audit().ok()) << vm_.space().Audit();
}

TEST_P(AgingTest, F6_ARangeNeedsNoAlignmentAndTakesItsPagesOnly) {
  for (uint64_t gfn : {9, 10, 11}) Read(gfn);
  EXPECT_EQ(Age(vm_.space(), Frames(10, 1)), (Gfns{10}));
  EXPECT_EQ(Age(vm_.space()), (Gfns{9, 11}));
}

TEST_P(AgingTest, A4_EveryAliasCounts) {
  ASSERT_TRUE(vm_.t().Convert({Frames(8, 1)}, kShared).ok());
  Read(7);
  Read(8, kShared);
  const HwGfn frame = vm_.space().layout().HwGfnOf(Gfn(9), kPrivate, /*execute_only=*/true);
  ASSERT_TRUE(std::holds_alternative<Fixed>(
      vm_.space().HandleFault({Gpa(frame.value << kPageShift), Access::Fetch()})));
  // No processor has walked the last one, so no flag is set; without flags its rights count.
  EXPECT_EQ(Age(vm_.space()), flags() ? (Gfns{7, 8}) : (Gfns{7, 8, 9}));
}

INSTANTIATE_TEST_SUITE_P(Flags, AgingTest, testing::Bool(), [](const auto& info) {
  return info.param ? "WithAccessedFlags" : "WithoutAccessedFlags";
});

TestSpaceOptions WithoutFlags() { return {.capabilities = {.accessed_dirty = false}}; }

TEST(SavedRightsTest, F6_OneExchangeGivesReadAndFetchBackAndWAsksAgain) {
  TestSpace t(WithoutFlags());
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  t.log.Take();
  EXPECT_EQ(Age(*t.space).size(), 512u) << "a large leaf counts for all of its pages";
  EXPECT_EQ(t.log.Take(), (std::vector<std::string>{"flush private 0x0+512"}));
  const auto access = [&] { return t.space->Translate(Gpa(0x5000), kPrivate)->access; };
  EXPECT_TRUE(access().empty());
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
  const auto before = t.space->stats().faults_fast;
  EXPECT_TRUE(t.Fixes(5, kPrivate));
  EXPECT_EQ(access(), Access::Read() | Access::Fetch());
  EXPECT_TRUE(std::holds_alternative<Fixed>(t.Touch(5, kPrivate, Access::Write())));
  EXPECT_EQ(access(), Access::All());
  EXPECT_EQ(t.space->stats().faults_fast, before + 2);
  EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k2M);
}

TEST(SavedRightsTest, F6_AWriteGetsEverythingBackAtOnce) {
  TestSpace t(WithoutFlags());
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  Age(*t.space);
  EXPECT_TRUE(std::holds_alternative<Fixed>(t.Touch(5, kPrivate, Access::Write())));
  EXPECT_EQ(t.space->Translate(Gpa(0x5000), kPrivate)->access, Access::All());
}

TEST(SavedRightsTest, F3_AWriteAfterAgingIsLoggedAgain) {
  ProcessorVm vm(WithoutFlags());
  ASSERT_TRUE(vm.space().EnableDirtyLog({}).ok());
  vm.Write(0, 5, kPrivate, 1);
  Age(vm.space());
  EXPECT_EQ(vm.space().HarvestDirty(Frames(0, 64))->words[0], uint64_t{1} << 5);
  EXPECT_EQ(FaultsOf(vm.Touch(0, Gfn(5), kPrivate, Access::Read())), 1);
  EXPECT_EQ(vm.space().HarvestDirty(Frames(0, 64))->words[0], 0u) << "a read is no write";
  EXPECT_EQ(FaultsOf(vm.Write(0, 5, kPrivate, 2)), 1);
  EXPECT_EQ(vm.space().HarvestDirty(Frames(0, 64))->words[0], uint64_t{1} << 5);
}

TEST(SavedRightsTest, F6_AProcessorWithTheOldTranslationIsSeenToo) {
  ProcessorVm vm(WithoutFlags());
  vm.Write(0, 5, kPrivate, 1);
  ASSERT_EQ(Age(vm.space()).size(), 512u);
  EXPECT_EQ(FaultsOf(vm.Touch(0, Gfn(5), kPrivate, Access::Read())), 1) << "it was flushed";
  EXPECT_EQ(Age(vm.space()).size(), 512u);
}

TEST(SavedRightsTest, B10_AnNxHugePageThatWasAgedIsSplitByAFetch) {
  TestSpaceOptions options = WithoutFlags();
  options.nx_huge_pages = true;
  ProcessorVm vm(options);
  vm.Touch(0, Gfn(5), kPrivate, Access::Read());
  Age(vm.space());
  EXPECT_TRUE(
      std::holds_alternative<ProcessorVm::Done>(vm.Touch(0, Gfn(5), kPrivate, Access::Fetch())));
  EXPECT_EQ(vm.t().LevelOf(5, kPrivate), Level::k4K);
  EXPECT_TRUE(vm.space().Audit().ok()) << vm.space().Audit();
}

TEST(AgingOfExternalRootsTest, IsRefused) {
  TestSpace t({.external = true});
  EXPECT_TRUE(absl::IsFailedPrecondition(t.space->TestAndClearAccessed(Frames(0, 1)).status()));
}

}  // namespace
}  // namespace twinroot::mmu
