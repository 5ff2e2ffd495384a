// The walk "EPT violation", outcome by outcome, in the order of D1.
#include <gtest/gtest.h>

#include <utility>

#include "mmu/hw/ept_entry.h"
#include "tests/fakes/test_space.h"

namespace twinroot::mmu {
namespace {

constexpr auto kPrivate = MemoryKind::kPrivate;
constexpr auto kShared = MemoryKind::kShared;

TEST(FaultHandlerTest, F1_MapsOneSmallPageWithFourBitExactLevels) {
  TestSpace t({.max_level = Level::k4K});
  ASSERT_TRUE(t.create_status.ok()) << t.create_status;
  const FaultOutcome outcome = t.Touch(0x203, kPrivate, Access::Write());
  ASSERT_TRUE(std::holds_alternative<Fixed>(outcome));
  EXPECT_EQ(std::get<Fixed>(outcome).level, Level::k4K);

  const Translation walk = *t.space->Translate(Gpa(0x203'456), kPrivate);
  ASSERT_EQ(walk.steps.size(), 4u);
  const uint64_t indexes[] = {0, 0, 1, 3};
  for (int i = 0; i < 4; ++i) EXPECT_EQ(walk.steps[i].index, indexes[i]);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(walk.steps[i].entry & 0xFFF, 0xC07u);
  EXPECT_EQ(walk.steps[3].entry, (uint64_t{1} << 30) + 0x203'000 + 0xC37);
  EXPECT_EQ(walk.hpa, Hpa((uint64_t{1} << 30) + 0x203'456));
  EXPECT_EQ(walk.ept_pointer.raw() & 0xFFF, 0x5Eu);
  EXPECT_EQ(walk.steps[0].entry_hpa, walk.ept_pointer.root());
  EXPECT_EQ(walk.steps[1].entry_hpa, EptEntry(walk.steps[0].entry).address());
}

TEST(FaultHandlerTest, F1_MapsALargePageWithThreeLevels) {
  TestSpace t;
  const FaultOutcome outcome = t.Touch(0x203, kPrivate);
  ASSERT_TRUE(std::holds_alternative<Fixed>(outcome));
  EXPECT_EQ(std::get<Fixed>(outcome).level, Level::k2M);
  const Translation walk = *t.space->Translate(Gpa(0x203'456), kPrivate);
  ASSERT_EQ(walk.steps.size(), 3u);
  EXPECT_EQ(walk.steps[2].entry, (uint64_t{1} << 30) + 0x200'000 + 0xCB7);
  EXPECT_EQ(walk.hpa, Hpa((uint64_t{1} << 30) + 0x203'456));
  EXPECT_EQ(t.space->stats().leaves[0][1], 1u);
}

TEST(FaultHandlerTest, F1_WalksFiveLevels) {
  TestSpace t({.shared_bit = 51, .walk_bits = 57, .guest_maxphyaddr = 51});
  ASSERT_TRUE(t.create_status.ok()) << t.create_status;
  ASSERT_TRUE(t.Convert({Frames(0, 512)}, kShared).ok());
  ASSERT_TRUE(t.Fixes(5, kShared));
  const Translation walk = *t.space->Translate(Gpa(0x5000), kShared);
  ASSERT_EQ(walk.steps.size(), 4u);
  EXPECT_EQ(walk.steps[0].level, Level::k256T);
  EXPECT_EQ(walk.steps[0].index, 8u);  // bit 51
  EXPECT_EQ(walk.ept_pointer.levels(), 5);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(FaultHandlerTest, A2_SharedBitSelectsTheRootAndStaysInTheIndex) {
  TestSpace t;
  ASSERT_TRUE(t.Convert({Frames(512, 512)}, kShared).ok());
  ASSERT_TRUE(t.Fixes(0, kPrivate));
  ASSERT_TRUE(t.Fixes(512, kShared));
  const Translation mine = *t.space->Translate(Gpa(0), kPrivate);
  const Translation ours = *t.space->Translate(Gpa(512 << 12), kShared);
  EXPECT_NE(mine.ept_pointer.root(), ours.ept_pointer.root());
  EXPECT_EQ(mine.steps[0].index, 0u);
  EXPECT_EQ(ours.steps[0].index, 128u);  // bit 46
  EXPECT_FALSE(t.IsMapped(512, kPrivate));
  EXPECT_FALSE(t.IsMapped(0, kShared));
}

TEST(FaultHandlerTest, A2_ASharedBitInsideALowerLevelIsWalkedThere) {
  TestSpace t({.shared_bit = 36});
  ASSERT_TRUE(t.Convert({Frames(0, 512)}, kShared).ok());
  ASSERT_TRUE(t.Fixes(5, kShared));
  const Translation walk = *t.space->Translate(Gpa(0x5000), kShared);
  EXPECT_EQ(walk.steps[0].index, 0u);
  EXPECT_EQ(walk.steps[1].index, 64u);  // bit 36
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(FaultHandlerTest, A3_ReservedBitsOfAFaultAreRefused) {
  TestSpace t;
  const FaultOutcome outcome =
      t.space->HandleFault({Gpa((uint64_t{1} << 47) | 0x1000), Access::Read()});
  ASSERT_TRUE(std::holds_alternative<Failed>(outcome));
  EXPECT_TRUE(absl::IsInvalidArgument(std::get<Failed>(outcome).status));
  EXPECT_TRUE(t.Fixes(1, kPrivate));
}

TEST(FaultHandlerTest, A9_ExitsReportTheUnaliasedAddressAndTheKindAskedFor) {
  TestSpace t;
  const GpaLayout& layout = t.space->layout();
  const FaultOutcome shared =
      t.space->HandleFault({layout.GpaOf(Gfn(7), kShared, 0x123), Access::Write()});
  ASSERT_TRUE(std::holds_alternative<MemoryFaultExit>(shared));
  EXPECT_EQ(std::get<MemoryFaultExit>(shared).gpa, Gpa(0x7000));
  EXPECT_EQ(std::get<MemoryFaultExit>(shared).size, 4096u);
  EXPECT_EQ(std::get<MemoryFaultExit>(shared).wanted, kShared);

  const FaultOutcome mmio =
      t.space->HandleFault({layout.GpaOf(Gfn(5000), kShared, 0x123), Access::Write()});
  ASSERT_TRUE(std::holds_alternative<Mmio>(mmio));
  EXPECT_EQ(std::get<Mmio>(mmio).gpa, Gpa(5000 * 4096 + 0x123));
}

TEST(FaultHandlerTest, D1_AttributeMismatchComesBeforeTheMissingSlotAndBeforeThePage) {
  TestSpace t;
  int resolved = 0;
  t.pages.on_resolve = [&](Gfn, MemoryKind) { ++resolved; };
  // Private outside every slot: a memory fault, not MMIO.
  const FaultOutcome outside = t.Touch(5000, kPrivate);
  ASSERT_TRUE(std::holds_alternative<MemoryFaultExit>(outside));
  EXPECT_EQ(std::get<MemoryFaultExit>(outside).wanted, kPrivate);
  EXPECT_TRUE(std::holds_alternative<Mmio>(t.Touch(5000, kShared)));
  EXPECT_TRUE(std::holds_alternative<MemoryFaultExit>(t.Touch(5, kShared)));
  EXPECT_EQ(resolved, 0);
  EXPECT_EQ(t.space->stats().faults_memory, 2u);
  EXPECT_EQ(t.space->stats().faults_mmio, 1u);
}

TEST(FaultHandlerTest, D1_WithoutASharedBitOutsideTheSlotsIsMmio) {
  TestSpace t({.shared_bit = std::nullopt});
  EXPECT_TRUE(std::holds_alternative<Mmio>(t.Touch(5000, kPrivate)));
  EXPECT_TRUE(t.Fixes(5, kPrivate));
}

TEST(FaultHandlerTest, D1_AChangeWhileThePageIsResolvedMakesTheFaultRetry) {
  TestSpace t;
  bool once = true;
  t.pages.on_resolve = [&](Gfn, MemoryKind) {
    if (!std::exchange(once, false)) return;
    ASSERT_TRUE(t.Convert({Frames(5, 1)}, kShared).ok());
  };
  EXPECT_TRUE(std::holds_alternative<Retry>(t.Touch(5, kPrivate)));
  EXPECT_FALSE(t.IsMapped(5, kPrivate));
  EXPECT_TRUE(std::holds_alternative<MemoryFaultExit>(t.Touch(5, kPrivate)));
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(FaultHandlerTest, D1_APageThatCannotBeHadIsNoErrorIfItIsOfTheOtherKindMeanwhile) {
  TestSpace t;
  t.pages.fail_resolve = absl::ResourceExhaustedError("no private page is left");
  t.pages.on_resolve = [&](Gfn, MemoryKind) {
    ASSERT_TRUE(t.Convert({Frames(5, 1)}, kShared).ok());
  };
  EXPECT_TRUE(std::holds_alternative<Retry>(t.Touch(5, kPrivate)));
  EXPECT_TRUE(std::holds_alternative<MemoryFaultExit>(t.Touch(5, kPrivate)));
}

TEST(FaultHandlerTest, D3_ThePageSourceIsToldOfTheLeafThatIsWanted) {
  TestSpace t({.max_level = Level::k2M});
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  EXPECT_EQ(t.pages.last_wanted, Level::k2M);
  ASSERT_TRUE(t.Convert({Frames(512, 1)}, kShared).ok());
  ASSERT_TRUE(t.Fixes(513, kPrivate));
  EXPECT_EQ(t.pages.last_wanted, Level::k4K) << "the attributes differ inside";
  ASSERT_TRUE(t.Convert({Frames(512, 1)}, kPrivate).ok());
  ASSERT_TRUE(t.Fixes(514, kPrivate));
  EXPECT_EQ(t.pages.last_wanted, Level::k4K) << "a table stands there";
  ASSERT_TRUE(t.space->EnableDirtyLog({}).ok());
  ASSERT_TRUE(t.Fixes(1024, kPrivate));
  EXPECT_EQ(t.pages.last_wanted, Level::k4K) << "a log counts pages of 4K";
}

TEST(FaultHandlerTest, D1_AHostZapWhileThePageIsResolvedMakesTheFaultRetry) {
  TestSpace t;
  bool once = true;
  t.pages.on_resolve = [&](Gfn, MemoryKind) {
    if (!std::exchange(once, false)) return;
    ASSERT_TRUE(t.space->Zap(Frames(5, 1)).ok());
  };
  EXPECT_TRUE(std::holds_alternative<Retry>(t.Touch(5, kPrivate)));
  EXPECT_TRUE(t.Fixes(5, kPrivate));
}

TEST(FaultHandlerTest, D10_APrivateAccessIsNeverOfferedForEmulation) {
  TestSpace t({.private_backing = false});
  for (const uint64_t gfn : {0, 5, 2047, 2048, 100'000}) {
    for (const Access access : {Access::Read(), Access::Write(), Access::Fetch()}) {
      const FaultOutcome outcome = t.Touch(gfn, MemoryKind::kPrivate, access);
      ASSERT_TRUE(std::holds_alternative<MemoryFaultExit>(outcome)) << gfn;
      EXPECT_EQ(std::get<MemoryFaultExit>(outcome).wanted, MemoryKind::kPrivate);
    }
  }
  // The same addresses through the other alias, beyond memory, are the device model's.
  EXPECT_TRUE(std::holds_alternative<Mmio>(t.Touch(2048, MemoryKind::kShared)));
}

TEST(FaultHandlerTest, A3_BeyondTheStolenBitsNothingIsAndNothingIsTouched) {
  // Widths that leave frames between the last one of memory and the guest's address width.
  TestSpace t({.shared_bit = 39, .guest_maxphyaddr = 46});
  const Gpa beyond(uint64_t{1} << 42);
  const FaultOutcome hidden = t.space->HandleFault({beyond, Access::Read()});
  ASSERT_TRUE(std::holds_alternative<MemoryFaultExit>(hidden));
  const FaultOutcome device =
      t.space->HandleFault({Gpa(beyond.value | uint64_t{1} << 39), Access::Read()});
  ASSERT_TRUE(std::holds_alternative<Mmio>(device));
  EXPECT_EQ(std::get<Mmio>(device).gpa, beyond);
  EXPECT_EQ(t.space->stats().table_pages, 2u) << "the two roots";
}

TEST(FaultHandlerTest, D2_EachKindComesFromItsOwnBacking) {
  TestSpace t;
  ASSERT_TRUE(t.Convert({Frames(512, 1)}, kShared).ok());
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  ASSERT_TRUE(t.Fixes(512, kShared));
  EXPECT_EQ(t.space->Translate(Gpa(0x5000), kPrivate)->hpa, HpaOf(TestSpace::kPrivatePfn + 5));
  EXPECT_EQ(t.space->Translate(Gpa(0x200'000), kShared)->hpa, HpaOf(TestSpace::kSharedPfn + 512));
}

TEST(FaultHandlerTest, D2_ASlotWithoutPrivateBackingGivesAMemoryFault) {
  TestSpace t({.private_backing = false});
  const FaultOutcome outcome = t.Touch(5, kPrivate);
  ASSERT_TRUE(std::holds_alternative<MemoryFaultExit>(outcome));
  EXPECT_EQ(std::get<MemoryFaultExit>(outcome).wanted, kPrivate);
}

TEST(FaultHandlerTest, D2_APageSourceWithoutTheKindGivesAMemoryFault) {
  TestSpace t;
  t.pages.fail_resolve = absl::FailedPreconditionError("no such backing");
  EXPECT_TRUE(std::holds_alternative<MemoryFaultExit>(t.Touch(5, kPrivate)));
}

TEST(FaultHandlerTest, D3_LevelIsTheLeastThatSlotBackingAndAttributesAllow) {
  {
    TestSpace t({.frames = 1000});  // the second 2M page is not whole
    ASSERT_TRUE(t.Fixes(5, kPrivate));
    ASSERT_TRUE(t.Fixes(600, kPrivate));
    EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k2M);
    EXPECT_EQ(t.LevelOf(600, kPrivate), Level::k4K);
  }
  {
    TestSpace t({.max_level = Level::k4K});
    ASSERT_TRUE(t.Fixes(5, kPrivate));
    EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k4K);
  }
  {
    TestSpace t;
    ASSERT_TRUE(t.Convert({Frames(700, 1)}, kShared).ok());
    ASSERT_TRUE(t.Fixes(5, kPrivate));
    ASSERT_TRUE(t.Fixes(600, kPrivate));
    EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k2M);
    EXPECT_EQ(t.LevelOf(600, kPrivate), Level::k4K);
    EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
  }
  {
    TestSpace t({.external = true});
    t.external_private.max_level = Level::k4K;
    ASSERT_TRUE(t.Fixes(5, kPrivate));
    EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k4K);
  }
}

TEST(FaultHandlerTest, D3_AttributesThatBecomeUniformAllowALargePageAgain) {
  TestSpace t;
  ASSERT_TRUE(t.Convert({Frames(700, 1)}, kShared).ok());
  ASSERT_TRUE(t.Fixes(600, kPrivate));
  ASSERT_EQ(t.LevelOf(600, kPrivate), Level::k4K);
  ASSERT_TRUE(t.Convert({Frames(700, 1)}, kPrivate).ok());
  ASSERT_TRUE(t.space->Zap(Frames(512, 512)).ok());
  ASSERT_TRUE(t.Fixes(600, kPrivate));
  EXPECT_EQ(t.LevelOf(600, kPrivate), Level::k2M);
}

TEST(FaultHandlerTest, ASecondFaultIsSpuriousAndChangesNothing) {
  TestSpace t;
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  const AddressSpaceStats before = t.space->stats();
  EXPECT_TRUE(std::holds_alternative<Spurious>(t.Touch(6, kPrivate)));
  const AddressSpaceStats after = t.space->stats();
  EXPECT_EQ(after.faults_spurious, before.faults_spurious + 1);
  EXPECT_EQ(after.leaves[0][1], before.leaves[0][1]);
  EXPECT_EQ(after.table_pages, before.table_pages);
}

TEST(FaultHandlerTest, D8_AFrameOfTheWrongBackingBugsTheVmInsteadOfBeingMapped) {
  TestSpace t;
  t.pages.wrong_frames = true;
  const FaultOutcome outcome = t.Touch(5, kPrivate);
  ASSERT_TRUE(std::holds_alternative<Failed>(outcome));
  EXPECT_FALSE(t.IsMapped(5, kPrivate));
  EXPECT_NE(t.space->bugged(), "");
  EXPECT_TRUE(std::holds_alternative<Failed>(t.Touch(6, kPrivate)));
  EXPECT_FALSE(t.Convert({Frames(5, 1)}, kShared).ok());
}

TEST(FaultHandlerTest, APageThatCannotBeHadFailsAndLeavesNothing) {
  TestSpace t;
  const uint64_t tables = t.space->stats().table_pages;
  t.pages.fail_resolve = absl::ResourceExhaustedError("no memory");
  const FaultOutcome outcome = t.Touch(5, kPrivate);
  ASSERT_TRUE(std::holds_alternative<Failed>(outcome));
  EXPECT_TRUE(absl::IsResourceExhausted(std::get<Failed>(outcome).status));
  EXPECT_EQ(t.space->stats().table_pages, tables);
  EXPECT_EQ(t.space->stats().faults_failed, 1u);
  EXPECT_EQ(t.space->bugged(), "");
}

// Give the pool 1, 2, 3 ... pages until everything succeeds; audit after each failure.
TEST(FaultHandlerTest, ASweepOverThePoolSizeNeverLeavesAHalfDoneFault) {
  bool succeeded = false;
  size_t pages = 1;
  for (; !succeeded && pages < 32; ++pages) {
    TestSpace t({.pool_pages = pages, .max_level = Level::k4K});
    if (!t.create_status.ok()) {
      EXPECT_TRUE(absl::IsResourceExhausted(t.create_status)) << t.create_status;
      EXPECT_EQ(t.pool.stats().used, 0u);
      continue;
    }
    ASSERT_TRUE(t.Convert({Frames(512, 512)}, kShared).ok());
    succeeded = true;
    for (const auto& [gfn, kind] : {std::pair{0, kPrivate}, {600, kShared}, {1024, kPrivate}}) {
      const FaultOutcome outcome = t.Touch(gfn, kind);
      if (std::holds_alternative<Fixed>(outcome)) continue;
      succeeded = false;
      ASSERT_TRUE(std::holds_alternative<Failed>(outcome));
      EXPECT_TRUE(absl::IsResourceExhausted(std::get<Failed>(outcome).status));
      ASSERT_TRUE(t.space->Audit().ok()) << t.space->Audit();
      EXPECT_EQ(t.pool.stats().used, t.space->stats().table_pages) << "a table leaked";
    }
    // A conversion needs no table: it works in the smallest pool.
    ASSERT_TRUE(t.Convert({Frames(0, 2048)}, kShared).ok());
    ASSERT_TRUE(t.space->Audit().ok()) << t.space->Audit();
  }
  EXPECT_TRUE(succeeded);
  // Two roots, three levels below each, and a second lowest table for the private one.
  EXPECT_EQ(pages - 1, 2u + 3 + 3 + 1);
}

}  // namespace
}  // namespace twinroot::mmu
