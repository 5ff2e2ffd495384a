#include "mmu/shadow/shadow_map.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "tests/mmu/shadow/scenario_guest.h"

namespace twinroot::mmu {
namespace {

using Guest = ScenarioGuest;
using manual::Mode;

constexpr uint64_t k2M = uint64_t{2} << 20;

// The role confusion of CVE-2026-53359: a directory entry that is now a large page, now a table,
// at the same slot of the same shadow, with faults in between.
TEST(ShadowMapTest, B2_AnEntryToggledBetweenALargePageAndATableKeepsReverseMapsExact) {
  for (const Level largest : {Level::k2M, Level::k4K}) {
    Guest guest(Level::k512G);
    guest.machine.largest = largest;
    guest.FourLevels(2);
    guest.Write(4, 0, Guest::Page(600));
    for (int round = 0; round < 8; ++round) {
      guest.Write(3, 0, 512 * kPageSize | Guest::kRwu | Guest::kLarge);
      guest.Reload();
      EXPECT_EQ(guest.FrameAt(0), 512);
      EXPECT_EQ(guest.Mappings(512, largest), 1u);
      guest.Write(3, 0, Guest::Link(4));
      guest.Reload();
      EXPECT_EQ(guest.FrameAt(0), 600);
      EXPECT_EQ(guest.Mappings(600), 1u);
      ASSERT_EQ(guest.machine.Audit(), std::nullopt) << "round " << round;
    }
  }
}

TEST(ShadowMapTest, B3_AReverseMappingUnderAnotherFrameIsABugOfThisVm) {
  Guest guest(Level::k512G);
  guest.FourLevels();
  guest.Write(4, 0, Guest::Page(600));
  ASSERT_EQ(guest.FrameAt(0), 600);
  ShadowPage& page = guest.ShadowOf(4);
  page.SetTranslation(0, Gfn(601), page.RightsAt(0));
  ShadowFlush flush = guest.machine.tables.NewFlush();
  guest.machine.tables.Clear(guest.machine.turn(), page, 0, flush);
  flush.Finish(guest.machine.turn());
  ASSERT_EQ(guest.machine.bugs.size(), 1u);
  EXPECT_NE(guest.machine.bugs[0].find("0x259"), std::string::npos) << guest.machine.bugs[0];
  EXPECT_TRUE(guest.machine.Audit().has_value());
  guest.machine.bugs.clear();
  // As it was, so that the last audit is clean.
  page.SetTranslation(0, Gfn(600), GuestRights::All());
  EXPECT_TRUE(const_cast<ReverseMap&>(guest.machine.tables.reverse_map())
                  .Remove(Level::k4K, Gfn(600), page.slot(0)));
}

TEST(ShadowMapTest, B3_AZapOfAFrameWhoseReverseMapIsWrongEndsAndIsABug) {
  Guest guest(Level::k512G);
  guest.FourLevels();
  guest.Write(4, 0, Guest::Page(600));
  ASSERT_EQ(guest.FrameAt(0), 600);
  auto& reverse_map = const_cast<ReverseMap&>(guest.machine.tables.reverse_map());
  EntrySlot& other = guest.ShadowOf(4).slot(9);
  reverse_map.Add(Level::k4K, Gfn(700), other);
  ShadowFlush flush = guest.machine.tables.NewFlush();
  guest.machine.tables.ZapRange(guest.machine.turn(), {Gfn(700), 1}, flush);
  flush.Finish(guest.machine.turn());
  EXPECT_EQ(guest.machine.bugs.size(), 1u);
  EXPECT_TRUE(guest.machine.Audit().has_value());
  guest.machine.bugs.clear();
  EXPECT_TRUE(reverse_map.Remove(Level::k4K, Gfn(700), other));
}

TEST(ShadowMapTest, B6_TheCacheIsWrittenOnFirstMapOnChangedRightsAndOnSync) {
  Guest guest(Level::k512G);
  guest.FourLevels();
  guest.Write(4, 0, Guest::Page(600, Guest::kRwu));
  ASSERT_EQ(guest.FrameAt(0), 600);
  ShadowPage& page = guest.ShadowOf(4);
  // Not dirty yet: the first write has to come by.
  EXPECT_EQ(page.GfnAt(0), Gfn(600));
  EXPECT_EQ(page.RightsAt(0), GuestRights::User() | GuestRights::Execute());
  ASSERT_TRUE(guest.Touch(0));
  EXPECT_EQ(page.RightsAt(0), GuestRights::All());
  guest.Write(4, 0, Guest::Page(600, Guest::kRu | Guest::kAccessed));
  guest.Reload();
  EXPECT_EQ(page.RightsAt(0), GuestRights::User() | GuestRights::Execute());
  EXPECT_EQ(guest.Mappings(600), 1u);
}

TEST(ShadowMapTest, B7_SyncDropsWhatIsGoneAndFlushesOnlyWhatShrank) {
  Guest guest(Level::k512G);
  guest.FourLevels();
  guest.Write(4, 0, Guest::Page(600, Guest::kRwu));
  ASSERT_TRUE(guest.Touch(0));
  ShadowPage& page = guest.ShadowOf(4);
  ShadowMachine& machine = guest.machine;
  constexpr uint64_t kUsed = Guest::kAccessed | Guest::kDirty;
  // The guest writes the entry while it may; how many flushes it costs to be in step again.
  const auto flushes = [&](uint64_t entry) {
    EXPECT_TRUE(machine.tables.MakeUnsync(machine.turn(), Gfn(4)));
    machine.memory.Store(4 * kPageSize, entry);
    const uint64_t before = machine.flushes;
    machine.mapper.SyncAll(machine.turn());
    return machine.flushes - before;
  };
  flushes(Guest::Page(600, Guest::kRwu | kUsed));  // nobody can write it any more
  const EptEntry word = page.slot(0).Load();
  EXPECT_EQ(flushes(Guest::Page(600, Guest::kRwu | kUsed)), 0u);
  EXPECT_EQ(page.slot(0).Load(), word);
  EXPECT_EQ(flushes(Guest::Page(600, Guest::kRu | kUsed)), 1u);
  EXPECT_EQ(page.RightsAt(0), GuestRights::User() | GuestRights::Execute());
  EXPECT_EQ(flushes(Guest::Page(600, Guest::kRwu | kUsed)), 0u);
  EXPECT_EQ(page.RightsAt(0), GuestRights::All());
  EXPECT_EQ(machine.tables.StateAt(page, 0), SlotState::kLeaf);
  EXPECT_EQ(flushes(Guest::Page(601, Guest::kRwu | kUsed)), 1u);
  EXPECT_EQ(machine.tables.StateAt(page, 0), SlotState::kEmpty);
  EXPECT_EQ(guest.FrameAt(0), 601);
  EXPECT_EQ(flushes(0), 1u);
  EXPECT_EQ(machine.tables.StateAt(page, 0), SlotState::kEmpty);
  EXPECT_EQ(guest.FrameAt(0), Guest::kNoPage);
}

TEST(ShadowMapTest, B7_WhatIsWrittenUntilTheFlushIsSynced) {
  Guest guest(Level::k512G);
  guest.FourLevels();
  guest.Write(4, 0, Guest::Page(600));
  ASSERT_EQ(guest.FrameAt(0), 600);
  guest.Write(4, 9, 0);  // from here on its writer's TLB has the table writable
  ShadowPage& page = guest.ShadowOf(4);
  ASSERT_TRUE(page.unsync);
  ShadowMachine& machine = guest.machine;
  machine.on_flush = [&] { machine.memory.Store(4 * kPageSize, 0); };
  machine.mapper.SyncAll(machine.turn());
  EXPECT_EQ(machine.tables.StateAt(page, 0), SlotState::kEmpty);
}

TEST(ShadowMapTest, AnEntryRewrittenBetweenWalkAndMapIsWalkedAgain) {
  Guest guest(Level::k512G);
  guest.FourLevels();
  guest.Write(4, 0, Guest::Page(600));
  const GuestRegisters registers = Guest::Registers(Mode::k4, 1);
  const Ia32Paging paging(RegistersOf(registers.state, registers.cr3), {.maxphyaddr = 40});
  ShadowMachine& machine = guest.machine;
  for (const uint64_t frame : {4, 3, 2, 1}) {
    LinearAccess access{0, Access::Read(), LinearMode::kUser};
    const GuestWalkOutcome walk = WalkGuest(paging, machine.memory, access);
    ASSERT_TRUE(std::holds_alternative<GuestTranslation>(walk));
    const uint64_t entry = machine.memory.Load(frame * kPageSize);
    machine.memory.Store(frame * kPageSize, entry | 0x200);  // an ignored bit is enough
    PreloadedTables preload(machine.pool);
    ASSERT_TRUE(machine.pool.Preload(kDeepestShadow, preload).ok());
    EXPECT_EQ(machine.mapper.Map(machine.turn(), *machine.root(0), GuestShape::Of(paging),
                                 std::get<GuestTranslation>(walk), 0, Access::Read(), preload),
              ShadowOutcome::kRetry)
        << frame;
    EXPECT_EQ(guest.Mappings(600), 0u);
  }
  EXPECT_EQ(guest.FrameAt(0), 600);
}

// A table that the guest may write is linked a second time: nobody can have cached anything along
// the new way, so what is found there must be what stands in memory.
TEST(ShadowMapTest, AnUnsyncTableThatIsLinkedElsewhereIsBroughtInStepFirst) {
  Guest guest(Level::k512G);
  guest.FourLevels();
  guest.Write(4, 0, Guest::Page(600));
  guest.Write(3, 1, Guest::Link(4));
  guest.Reload();
  ASSERT_EQ(guest.FrameAt(0), 600);
  guest.Write(4, 0, Guest::Page(601));
  EXPECT_TRUE(guest.ShadowOf(4).unsync);
  EXPECT_EQ(guest.FrameAt(k2M), 601);
  EXPECT_FALSE(guest.ShadowOf(4).unsync);
}

TEST(ShadowMapTest, ALeafTableBecomesWritableAndADirectoryIsWrittenByHand) {
  Guest guest(Level::k512G);
  guest.FourLevels();
  guest.Write(4, 0, Guest::Page(600));
  ASSERT_EQ(guest.FrameAt(0), 600);
  const uint64_t before = guest.machine.emulated;
  for (uint64_t i = 1; i < 100; ++i) guest.Write(4, i, Guest::Page(600 + i));
  EXPECT_EQ(guest.machine.emulated, before);
  guest.Write(3, 1, 0);
  EXPECT_EQ(guest.machine.emulated, before + 1);
}

// Writes that flood a directory: it stops being shadowed, and they go through by themselves.
TEST(ShadowMapTest, ADirectoryThatIsFloodedWithWritesLosesItsShadow) {
  Guest guest(Level::k512G);
  guest.FourLevels();
  guest.Write(4, 0, Guest::Page(600));
  ASSERT_EQ(guest.FrameAt(0), 600);
  const uint64_t before = guest.machine.emulated;
  for (uint64_t i = 1; i < 50; ++i) guest.Write(3, i, 0);
  EXPECT_EQ(guest.machine.emulated, before + 4);
  EXPECT_FALSE(guest.machine.tables.Shadowed(Gfn(3)));
  EXPECT_EQ(guest.FrameAt(0), 600);
}

TEST(ShadowMapTest, NoLargeLeafReachesOverATableOfTheGuest) {
  Guest guest(Level::k512G);
  guest.FourLevels(2);
  // The first 2M hold the tables; the second do not.
  guest.Write(3, 0, Guest::kRwu | Guest::kLarge);
  guest.Write(3, 1, k2M | Guest::kRwu | Guest::kLarge);
  guest.Reload();
  ASSERT_TRUE(guest.Touch(20 * kPageSize));
  ASSERT_TRUE(guest.Touch(k2M));
  EXPECT_EQ(guest.Mappings(0, Level::k2M), 0u);
  EXPECT_EQ(guest.Mappings(20), 2u);  // this guest's, and that of the vCPU without paging
  EXPECT_EQ(guest.Mappings(512, Level::k2M), 1u);
}

TEST(ShadowMapTest, TheCapIsKeptByTheLeastRecentlyUsedAndObsoleteRootsAreLoadedAnew) {
  Guest guest(Level::k512G);
  guest.FourLevels();
  for (uint64_t i = 0; i < 8; ++i) {
    guest.Write(3, i, Guest::Link(4 + i));
    guest.Write(4 + i, 0, Guest::Page(600 + i));
  }
  guest.Reload();
  for (uint64_t i = 0; i < 8; ++i) EXPECT_EQ(guest.FrameAt(i * k2M), static_cast<int>(600 + i));
  ShadowMachine& machine = guest.machine;
  ShadowFlush flush = machine.tables.NewFlush();
  const size_t before = machine.tables.pages();
  EXPECT_TRUE(machine.tables.MakeRoom(machine.turn(), 200 - before + 2, flush));
  EXPECT_EQ(machine.tables.pages(), before - 2);
  EXPECT_FALSE(machine.tables.MakeRoom(machine.turn(), 200, flush));  // roots stay
  flush.Finish(machine.turn());
  EXPECT_EQ(guest.FrameAt(0), 600);

  const ShadowPage* const old = machine.root(0);
  ShadowFlush kick = machine.tables.NewFlush();
  machine.tables.InvalidateAll(machine.turn(), kick);
  kick.Finish(machine.turn());
  EXPECT_TRUE(machine.tables.Obsolete(*old));
  // A processor that still has the old root finds nothing there.
  for (unsigned i = 0; i < kEntriesPerTable; ++i) {
    ASSERT_EQ(machine.tables.StateAt(*old, i), SlotState::kEmpty);
  }
  ShadowFlush again = machine.tables.NewFlush();
  while (machine.tables.ZapObsolete(machine.turn(), 2, again)) {
  }
  again.Finish(machine.turn());
  EXPECT_EQ(guest.FrameAt(0), 600);
  EXPECT_FALSE(machine.tables.Obsolete(*machine.root(0)));
}

TEST(ShadowMapTest, AnL1ThatChangesItsEptUnderAnL2) {
  Guest guest(Level::k512G, ShadowFormat::kEpt);
  for (uint64_t frame = 1; frame <= 3; ++frame) guest.Write(frame, 0, (frame + 1) * kPageSize | 7);
  guest.Write(4, 0, 600 * kPageSize | 6 << 3 | 7);
  guest.Write(4, 1, 601 * kPageSize | 6 << 3 | 4);  // execute-only
  guest.Load(Guest::Ept(1));
  EXPECT_EQ(guest.FrameAt(0), 600);
  const auto see = [&](manual::Kind kind) {
    return guest.machine.Access(0, {kPageSize, {kind, false, false, false}, 4, 0});
  };
  EXPECT_EQ(see(manual::Kind::kFetch).value, Guest::kMark + 601);
  EXPECT_EQ(see(manual::Kind::kRead).error, 0x1A1u);  // executable, not readable
  // Another page, then a large one, then W without R.
  guest.Write(4, 0, 602 * kPageSize | 6 << 3 | 7);
  guest.Reload();
  EXPECT_EQ(guest.FrameAt(0), 602);
  guest.Write(3, 0, 1024 * kPageSize | 6 << 3 | 0x87);
  guest.Reload();
  EXPECT_EQ(guest.FrameAt(0), 1024);
  guest.Write(3, 0, 1024 * kPageSize | 6 << 3 | 0x82);
  guest.Reload();
  EXPECT_EQ(see(manual::Kind::kRead).kind, Seen::Kind::kMisconfiguration);
}

}  // namespace
}  // namespace twinroot::mmu
