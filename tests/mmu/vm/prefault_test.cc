// Memory that is mapped before any vCPU touches it.
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "tests/mmu/vm/slots_fixture.h"

namespace twinroot::mmu {
namespace {

constexpr auto kPrivate = MemoryKind::kPrivate;
constexpr auto kShared = MemoryKind::kShared;

Access AccessAt(const SlotSpace& t, uint64_t gfn, MemoryKind kind) {
  return t.space->Translate(Gpa(gfn << kPageShift), kind)->access;
}

TEST(PrefaultTest, D9_ARangeIsMappedAsLargeAsFaultsWouldMapIt) {
  SlotSpace t;
  ASSERT_TRUE(t.Add(0, 2048, 0).ok());
  ASSERT_TRUE(t.Convert({Frames(520, 3)}, kShared).ok());
  const absl::StatusOr<PrefaultResult> done = t.space->Prefault(Frames(0, 2048), {}, nullptr);
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_TRUE(done->status.ok()) << done->status;
  EXPECT_EQ(done->frames_done, 2048u);
  // D3: no large page over the mixed 2 MiB.
  const AddressSpaceStats stats = t.space->stats();
  EXPECT_EQ(stats.leaves[0][1], 3u);
  EXPECT_EQ(stats.leaves[0][0], 509u);
  EXPECT_EQ(stats.leaves[1][0], 3u);
  // Nobody faulted.
  EXPECT_EQ(stats.faults_fixed, 0u);
  for (const uint64_t gfn : {0, 519, 523, 2047})
    EXPECT_EQ(AccessAt(t, gfn, kPrivate), Access::All());
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(PrefaultTest, D9_WhatIsThereAlreadyIsLeftAlone) {
  SlotSpace t;
  ASSERT_TRUE(t.Add(0, 2048, 0).ok());
  ASSERT_TRUE(t.Fixes(600, kPrivate));
  for (int i = 0; i < 2; ++i) {
    const auto done = t.space->Prefault(Frames(100, 1500), kPrivate, nullptr);
    ASSERT_TRUE(done.ok() && done->status.ok());
    EXPECT_EQ(done->frames_done, 1500u);
  }
  EXPECT_EQ(t.space->stats().leaves[0][1], 4u);
}

TEST(PrefaultTest, A8_ASharedRangePopulatesTheSharedRootOnly) {
  SlotSpace t;
  ASSERT_TRUE(t.Add(0, 1024, 0).ok());
  ASSERT_TRUE(t.Convert({Frames(0, 1024)}, kShared).ok());
  const uint64_t private_tables = t.space->Translate(Gpa(0), kPrivate)->steps.size();
  const auto done = t.space->Prefault(Frames(0, 1024), kShared, nullptr);
  ASSERT_TRUE(done.ok() && done->status.ok());
  EXPECT_EQ(t.space->stats().leaves[1][1], 2u);
  EXPECT_EQ(t.space->stats().leaves[0][1], 0u);
  EXPECT_EQ(t.space->Translate(Gpa(0), kPrivate)->steps.size(), private_tables);
}

TEST(PrefaultTest, A7_AliasesAndWhatIsNoMemoryAreRefused) {
  SlotSpace t;
  ASSERT_TRUE(t.Add(0, 1024, 0).ok());
  const uint64_t alias = (uint64_t{1} << 46) >> kPageShift;
  for (const GfnRange range :
       {Frames(alias, 1), Frames(0, 0), Frames(1000, 100), Frames(5000, 1)}) {
    EXPECT_TRUE(absl::IsInvalidArgument(t.space->Prefault(range, {}, nullptr).status()));
  }
  EXPECT_EQ(t.Leaves(), 0u);
}

TEST(PrefaultTest, D9_APageOfTheOtherKindEndsItByNameAndSaysHowFarItCame) {
  SlotSpace t({.max_level = Level::k4K});
  ASSERT_TRUE(t.Add(0, 1024, 0).ok());
  ASSERT_TRUE(t.Convert({Frames(0x25, 1)}, kShared).ok());
  const auto done = t.space->Prefault(Frames(0x20, 32), kPrivate, nullptr);
  ASSERT_TRUE(done.ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(done->status));
  EXPECT_NE(done->status.message().find("0x25000 is shared"), std::string::npos) << done->status;
  EXPECT_EQ(done->frames_done, 5u);
  EXPECT_EQ(t.space->stats().leaves[0][0], 5u);
  EXPECT_EQ(t.space->stats().leaves[1][0], 0u);
}

TEST(PrefaultTest, D9_TablesThatRunOutEndItAndSayHowFarItCame) {
  SlotSpace t({.pool_pages = 6, .max_level = Level::k4K});
  ASSERT_TRUE(t.Add(0, 4096, 0).ok());
  const auto done = t.space->Prefault(Frames(0, 4096), {}, nullptr);
  ASSERT_TRUE(done.ok());
  EXPECT_TRUE(absl::IsResourceExhausted(done->status)) << done->status;
  EXPECT_EQ(done->frames_done, 1024u);
}

TEST(PrefaultTest, TheCallerHearsOfProgressAndMayStop) {
  SlotSpace t({.max_level = Level::k4K});
  ASSERT_TRUE(t.Add(0, 4096, 0).ok());
  std::vector<uint64_t> heard;
  const auto done = t.space->Prefault(Frames(0, 4096), {}, [&](uint64_t frames) {
    heard.push_back(frames);
    return heard.size() < 3;
  });
  ASSERT_TRUE(done.ok());
  EXPECT_EQ(heard, (std::vector<uint64_t>{512, 1024, 1536}));
  EXPECT_TRUE(absl::IsCancelled(done->status));
  EXPECT_EQ(done->frames_done, 1536u);
  heard.clear();
  const auto rest = t.space->Prefault(Frames(1536, 700), {}, [&](uint64_t frames) {
    heard.push_back(frames);
    return true;
  });
  ASSERT_TRUE(rest.ok() && rest->status.ok());
  EXPECT_EQ(heard, (std::vector<uint64_t>{512, 700}));
}

TEST(PrefaultTest, D9_AConversionInTheMiddleOfAPageIsFollowedByAttribute) {
  SlotSpace t({.max_level = Level::k4K});
  ASSERT_TRUE(t.Add(0, 512, 0).ok());
  t.source.on_resolve = [&](Gfn gfn, MemoryKind kind) {
    if (gfn != Gfn(7) || kind != kPrivate) return;
    ASSERT_TRUE(t.Convert({Frames(7, 1)}, kShared).ok());
  };
  const auto done = t.space->Prefault(Frames(0, 16), {}, nullptr);
  ASSERT_TRUE(done.ok() && done->status.ok()) << done->status;
  EXPECT_FALSE(t.IsMapped(7, kPrivate));
  EXPECT_TRUE(t.IsMapped(7, kShared));
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(PrefaultTest, D9_AConversionInTheMiddleOfAPageRefusesTheKindThatWasAskedFor) {
  SlotSpace t({.max_level = Level::k4K});
  ASSERT_TRUE(t.Add(0, 512, 0).ok());
  t.source.after_resolve = [&](Gfn gfn, MemoryKind) {
    if (gfn != Gfn(7)) return;
    ASSERT_TRUE(t.Convert({Frames(7, 1)}, kShared).ok());
  };
  const auto done = t.space->Prefault(Frames(0, 16), kPrivate, nullptr);
  ASSERT_TRUE(done.ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(done->status)) << done->status;
  EXPECT_EQ(done->frames_done, 7u);
  EXPECT_FALSE(t.IsMapped(7, kPrivate));
}

TEST(PrefaultTest, D9_ASlotThatIsRemovedMeanwhileLeavesNoMapping) {
  SlotSpace t({.max_level = Level::k4K});
  ASSERT_TRUE(t.Add(0, 512, 0).ok());
  std::thread remover;
  t.source.on_resolve = [&](Gfn gfn, MemoryKind) {
    if (gfn != Gfn(7)) return;
    const uint64_t before = t.space->stats().invalidations;
    remover = std::thread([&] { EXPECT_TRUE(t.space->RemoveMemslot(Gfn(0)).ok()); });
    while (t.space->stats().invalidations == before) std::this_thread::yield();
  };
  const auto done = t.space->Prefault(Frames(0, 16), {}, nullptr);
  remover.join();
  ASSERT_TRUE(done.ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(done->status)) << done->status;
  EXPECT_NE(done->status.message().find("no memory any more"), std::string::npos);
  EXPECT_EQ(done->frames_done, 7u);
  EXPECT_EQ(t.Leaves(), 0u);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(PrefaultTest, D9_APageThatKeepsChangingIsGivenUp) {
  SlotSpace t({.max_level = Level::k4K});
  ASSERT_TRUE(t.Add(0, 512, 0).ok());
  int conversions = 0;
  t.source.after_resolve = [&](Gfn gfn, MemoryKind kind) {
    if (gfn != Gfn(3)) return;
    ++conversions;
    ASSERT_TRUE(t.Convert({Frames(3, 1)}, Other(kind)).ok());
  };
  const auto done = t.space->Prefault(Frames(0, 16), {}, nullptr);
  ASSERT_TRUE(done.ok());
  EXPECT_TRUE(absl::IsAborted(done->status)) << done->status;
  EXPECT_EQ(done->frames_done, 3u);
  EXPECT_LT(conversions, 1000);
}

TEST(PrefaultTest, D2_ASlotWithoutTheBackingIsNamed) {
  SlotSpace t;
  t.source.Place(Frames(0, 512), Gfn(0));
  Memslot slot = t.SlotAt(0, 512, 0);
  slot.private_pfn.reset();
  ASSERT_TRUE(t.space->AddMemslot(slot).ok());
  const auto done = t.space->Prefault(Frames(0, 512), {}, nullptr);
  ASSERT_TRUE(done.ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(done->status));
  EXPECT_NE(done->status.message().find("without private backing"), std::string::npos);
}

TEST(PrefaultTest, E1_ExternalTablesAreTold) {
  SlotSpace t({.external = true});
  ASSERT_TRUE(t.Add(0, 1024, 0).ok());
  const auto done = t.space->Prefault(Frames(0, 1024), {}, nullptr);
  ASSERT_TRUE(done.ok() && done->status.ok());
  EXPECT_EQ(t.external_private.frames(), 1024u);
}

}  // namespace
}  // namespace twinroot::mmu
