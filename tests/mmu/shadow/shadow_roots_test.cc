#include "mmu/shadow/shadow_roots.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "tests/mmu/shadow/scenario_guest.h"

namespace twinroot::mmu {
namespace {

using Guest = ScenarioGuest;
using manual::Mode;

constexpr uint64_t k2M = uint64_t{2} << 20;
constexpr uint64_t k1G = uint64_t{1} << 30;

TEST(ShadowRootsTest, C1_LevelsAboveTheGuestsTopArePromotedAndTheTopIsNot) {
  Guest guest(Level::k256T);
  guest.FourLevels();
  guest.Write(4, 0, Guest::Page(600));
  ASSERT_EQ(guest.FrameAt(0), 600);
  const ShadowPage& root = *guest.machine.root(0);
  EXPECT_EQ(root.level(), Level::k256T);  // C6: the shadow's, whatever the guest's
  EXPECT_TRUE(root.role().promoted);
  const ShadowPage& top = *guest.machine.tables.ChildAt(root, 0);
  EXPECT_FALSE(top.role().promoted);
  EXPECT_EQ(top.gfn(), Gfn(1));
  EXPECT_TRUE(top.indirect());
}

TEST(ShadowRootsTest, C2_APromotedTableHoldsOneLinkAndNothingOfTheGuests) {
  Guest guest(Level::k256T);
  guest.FourLevels();
  guest.Write(4, 0, Guest::Page(600));
  ASSERT_EQ(guest.FrameAt(0), 600);
  ShadowPage& root = *guest.machine.root(0);
  EXPECT_EQ(root.slots(), 1u);
  for (const unsigned index : {0u, 1u, 511u}) EXPECT_EQ(root.GfnAt(index), Gfn(1));
  // It is none of the pages that a write to the guest's table concerns.
  for (const ShadowPage* page : guest.machine.tables.PagesOf(Gfn(1))) EXPECT_NE(page, &root);
  guest.Write(1, 0, Guest::Link(2));
  EXPECT_EQ(guest.machine.tables.StateAt(root, 0), SlotState::kLink);
  EXPECT_FALSE(root.unsync);
}

// The guard of passthrough translations: no array, so nothing is remembered; each mismatch is told.
TEST(ShadowRootsTest, B4_PagesWithoutAnArrayAnswerFromTheRoleAndTellMismatchesApart) {
  Guest guest(Level::k256T);
  guest.FourLevels(2);
  guest.Write(3, 0, 512 * kPageSize | Guest::kRu | Guest::kLarge);
  guest.machine.largest = Level::k4K;
  ASSERT_EQ(guest.FrameAt(0), 512);
  ShadowPage& promoted = *guest.machine.root(0);
  TranslationMismatch told = promoted.SetTranslation(7, Gfn(9), GuestRights::All());
  EXPECT_TRUE(told.gfn);
  EXPECT_FALSE(told.rights);
  EXPECT_EQ(promoted.Describe(told, 7, Gfn(9), GuestRights::All()),
            "gfn mismatch under promoted page 0x1: expected 0x1, got 0x9");
  told = promoted.SetTranslation(7, Gfn(1), GuestRights::User());
  EXPECT_TRUE(told.rights);
  EXPECT_FALSE(told.gfn);
  EXPECT_EQ(promoted.Describe(told, 7, Gfn(1), GuestRights::User()),
            "access mismatch under promoted page 0x1: expected 7, got 4");
  EXPECT_EQ(promoted.GfnAt(7), Gfn(1));
  // The large page of the guest stands on a direct page of small ones.
  ShadowPage& directory = guest.ShadowOf(3);
  ShadowPage& direct = *guest.machine.tables.ChildAt(directory, 0);
  ASSERT_TRUE(direct.role().direct);
  EXPECT_EQ(direct.GfnAt(5), Gfn(517));
  EXPECT_EQ(direct.RightsAt(5), GuestRights::User() | GuestRights::Execute());
  EXPECT_FALSE(direct.SetTranslation(5, Gfn(517), direct.RightsAt(5)).any());
  told = direct.SetTranslation(5, Gfn(518), GuestRights::None());
  EXPECT_TRUE(told.gfn && told.rights);
  EXPECT_EQ(direct.GfnAt(5), Gfn(517));
}

TEST(ShadowRootsTest, C3_TogglingLa57OverOneRootFrameNeverReusesTheWrongRoot) {
  Guest guest(Level::k256T);
  guest.FourLevels(4);  // frames 1 to 5: five tables one below the other
  guest.Write(5, 0, Guest::Page(600));
  // Of four levels the fifth table is the page.
  guest.machine.memory.Store(5 * kPageSize, Guest::Page(600));
  std::set<const ShadowPage*> roots;
  for (int round = 0; round < 4; ++round) {
    guest.Load(Guest::Registers(Mode::k5, 1));
    EXPECT_EQ(guest.FrameAt(0), 600);
    roots.insert(guest.machine.root(0));
    guest.Load(Guest::Registers(Mode::k4, 1));
    const Seen seen = guest.machine.Access(0, {0, {manual::Kind::kRead, true, false, false}, 4, 0});
    EXPECT_EQ(seen.gpa, 5 * kPageSize);
    roots.insert(guest.machine.root(0));
  }
  EXPECT_EQ(roots.size(), 2u);
}

TEST(ShadowRootsTest, C4_APaeRootIsFourPdptesBelow4GiB) {
  Guest guest(Level::k1G);
  guest.Write(1, 0, 2 * kPageSize | 1);
  guest.Write(1, 2, 3 * kPageSize | 1);
  guest.Write(2, 0, 512 * kPageSize | Guest::kRwu | Guest::kLarge);
  guest.Write(3, 0, 1024 * kPageSize | Guest::kRwu | Guest::kLarge);
  guest.Load(Guest::Registers(Mode::kPae, 1));
  EXPECT_EQ(guest.FrameAt(0), 512);
  EXPECT_EQ(guest.FrameAt(2 * k1G), 1024);
  EXPECT_EQ(guest.FrameAt(k1G), Guest::kNoPage);
  const ShadowPage& root = *guest.machine.root(0);
  EXPECT_LT(root.table.hpa.value, uint64_t{1} << 32);
  for (unsigned i = 0; i < 4; ++i) {
    const uint64_t word = guest.machine.RawWord(root.table.hpa.value + 8 * i);
    if (i == 0 || i == 2) {
      EXPECT_EQ(word & ~uint64_t{0x800}, (word & 0xFFFF'F000) | 1) << i;
    } else {
      EXPECT_EQ(word, 0u);
    }
  }
}

TEST(ShadowRootsTest, C4_APoolAbove4GiBHasNoPaeRoots) {
  PoolMemory memory(2);
  TablePool pool(Hpa(uint64_t{1} << 32), memory.get(), 2);
  Guest guest(Level::k1G);
  VmCounts counts;
  EntryChange change(counts);
  ShadowTables tables({.root_level = Level::k1G}, {&pool, &change, nullptr, &guest.machine});
  ShadowRoots roots(tables);
  PreloadedTables preload(pool);
  ASSERT_TRUE(pool.Preload(1, preload).ok());
  const auto loaded = roots.Load(guest.machine.turn(), {GuestShape::Unpaged(), Gpa(0)}, preload);
  EXPECT_TRUE(absl::IsUnavailable(loaded.status())) << loaded.status();
  EXPECT_EQ(preload.size(), 1u);
  EXPECT_EQ(tables.pages(), 0u);
}

TEST(ShadowRootsTest, C4_QuadrantsOfA32BitGuestSplitADirectoryOverFourAndATableOverTwo) {
  for (const Level root_level : {Level::k1G, Level::k512G, Level::k256T}) {
    Guest guest(root_level);
    guest.Write(1, 0, Guest::Link(2), 4);
    guest.Write(1, 256, Guest::Link(2), 4);
    guest.Write(1, 512, Guest::Link(2), 4);
    guest.Write(1, 1023, Guest::Link(2), 4);
    guest.Write(2, 3, Guest::Page(600), 4);
    guest.Write(2, 1023, Guest::Page(601), 4);
    guest.Load(Guest::Registers(Mode::k32, 1));
    constexpr uint64_t k4M = uint64_t{4} << 20;
    for (const uint64_t entry : {0, 256, 512, 1023}) {
      EXPECT_EQ(guest.FrameAt(entry * k4M + 3 * kPageSize), 600);
      EXPECT_EQ(guest.FrameAt(entry * k4M + 1023 * kPageSize), 601);
    }
    EXPECT_EQ(guest.machine.tables.PagesOf(Gfn(1)).size(), 4u);
    EXPECT_EQ(guest.machine.tables.PagesOf(Gfn(2)).size(), 2u);
  }
}

TEST(ShadowRootsTest, C6_WalksBeginAtTheRootLevelOfTheShadowWhateverTheGuests) {
  for (const Mode mode : {Mode::k32, Mode::k4}) {
    for (const Level root_level : {Level::k512G, Level::k256T}) {
      Guest guest(root_level);
      const int bytes = mode == Mode::k32 ? 4 : 8;
      for (uint64_t frame = 1; frame < (mode == Mode::k32 ? 2 : 4); ++frame) {
        guest.Write(frame, 0, Guest::Link(frame + 1), bytes);
      }
      guest.Write(mode == Mode::k32 ? 2 : 4, 0, Guest::Page(600), bytes);
      guest.Load(Guest::Registers(mode, 1));
      ASSERT_EQ(guest.FrameAt(0), 600);
      // From the root down one table of each level, to the leaf.
      const ShadowPage* page = guest.machine.root(0);
      for (int level = static_cast<int>(root_level); level > 1; --level) {
        ASSERT_EQ(static_cast<int>(page->level()), level);
        page = guest.machine.tables.ChildAt(*page, 0);
        ASSERT_NE(page, nullptr);
      }
      EXPECT_EQ(page->GfnAt(0), Gfn(600));
    }
  }
}

TEST(ShadowRootsTest, C7_ThreeRootsBeforeTheCurrentOneAreKeptAndObsoleteOnesAreNot) {
  Guest guest(Level::k512G);
  guest.FourLevels();
  guest.Write(4, 0, Guest::Page(600));
  std::vector<ShadowPage*> roots;
  for (uint64_t top = 8; top < 12; ++top) {
    guest.Write(top, 0, Guest::Link(2));
    guest.Load(Guest::Registers(Mode::k4, top));
    ASSERT_EQ(guest.FrameAt(0), 600);
    roots.push_back(guest.machine.root(0));
  }
  for (uint64_t top = 8; top < 12; ++top) {
    guest.Load(Guest::Registers(Mode::k4, top));
    EXPECT_EQ(guest.machine.root(0), roots[top - 8]);
    const uint64_t before = guest.machine.faults;
    EXPECT_EQ(guest.FrameAt(0), 600);
    EXPECT_EQ(guest.machine.faults, before);  // all of it was there
  }
  for (const ShadowPage* root : roots) EXPECT_EQ(root->roots, 1u);
  guest.Load(Guest::Registers(Mode::k4, 1));
  EXPECT_EQ(roots[0]->roots, 0u);
  EXPECT_EQ(roots[1]->roots, 1u);
  ShadowFlush flush = guest.machine.tables.NewFlush();
  guest.machine.tables.InvalidateAll(guest.machine.turn(), flush);
  flush.Finish(guest.machine.turn());
  guest.Load(Guest::Registers(Mode::k4, 11));
  EXPECT_NE(guest.machine.root(0), roots[3]);
}

TEST(ShadowRootsTest, C7_APaeGuestThatSwitchesPdptesLosesOnlyWhatTheyNamed) {
  for (const Level root_level : {Level::k1G, Level::k512G, Level::k256T}) {
    Guest guest(root_level);
    guest.Write(1, 0, 2 * kPageSize | 1);
    guest.Write(1, 1, 3 * kPageSize | 1);
    guest.Write(2, 0, 512 * kPageSize | Guest::kRwu | Guest::kLarge);
    guest.Write(3, 0, 1024 * kPageSize | Guest::kRwu | Guest::kLarge);
    guest.Write(4, 0, 1536 * kPageSize | Guest::kRwu | Guest::kLarge);
    guest.Load(Guest::Registers(Mode::kPae, 1));
    EXPECT_EQ(guest.FrameAt(0), 512);
    EXPECT_EQ(guest.FrameAt(k1G), 1024);
    // What stands in memory counts only when it is loaded.
    guest.Write(1, 1, 4 * kPageSize | 1);
    EXPECT_EQ(guest.FrameAt(k1G), 1024);
    const ShadowPage* const root = guest.machine.root(0);
    guest.Reload();
    EXPECT_EQ(guest.machine.root(0), root);
    uint64_t before = guest.machine.faults;
    EXPECT_EQ(guest.FrameAt(0), 512);
    EXPECT_EQ(guest.machine.faults, before);
    EXPECT_EQ(guest.FrameAt(k1G), 1536);
    EXPECT_GT(guest.machine.faults, before);
  }
}

// C8: the cases of the original series. What a page of `mode`'s tables leads to, through shadows of
// `root_level`; nested or not.
void OneGuest(Mode mode, bool pse, Level root_level, bool nested) {
  SCOPED_TRACE(::testing::Message()
               << "mode " << static_cast<int>(mode) << " pse " << pse << " root level "
               << static_cast<int>(root_level) << " nested " << nested);
  Guest guest(root_level);
  const int bytes = mode == Mode::k32 ? 4 : 8;
  uint64_t frame = 1;
  if (mode == Mode::kPae) guest.Write(frame++, 0, 2 * kPageSize | 1);
  const int above = mode == Mode::k5 ? 3 : mode == Mode::k4 ? 2 : 0;
  for (int i = 0; i < above; ++i, ++frame) guest.Write(frame, 0, Guest::Link(frame + 1));
  // A directory: a table, and a large page, which 32-bit paging knows with PSE alone.
  guest.Write(frame, 0, Guest::Link(frame + 1), bytes);
  guest.Write(frame, 1, 1024 * kPageSize | Guest::kRwu | Guest::kLarge, bytes);
  guest.Write(frame + 1, 0, Guest::Page(600), bytes);
  GuestRegisters registers = Guest::Registers(mode, 1);
  registers.state.pse = pse;
  registers.nested = nested;
  guest.Load(registers);
  EXPECT_EQ(guest.FrameAt(0), 600);
  EXPECT_TRUE(guest.Touch(0));
  const uint64_t large = mode == Mode::k32 ? 2 * k2M : k2M;
  if (mode != Mode::k32 || pse) {
    EXPECT_EQ(guest.FrameAt(large), 1024);
    if (mode == Mode::k32) {
      EXPECT_EQ(guest.FrameAt(large + k2M), 1536);
    }
  } else {
    // Frame 1024 is a table: its first word is no entry that leads on.
    EXPECT_NE(guest.FrameAt(large), 1024);
  }
  EXPECT_EQ(guest.machine.root(0)->level(), root_level);
}

TEST(ShadowRootsTest, C8_AnUnpaged32BitGuestOnADirectMmu) {
  for (const Level root_level : {Level::k1G, Level::k512G, Level::k256T}) {
    Guest guest(root_level);
    EXPECT_EQ(guest.FrameAt(600 * kPageSize), 600);
    EXPECT_TRUE(guest.machine.root(0)->role().direct);
    EXPECT_EQ(guest.machine.root(0), guest.machine.root(1));
  }
}
TEST(ShadowRootsTest, C8_A32BitGuestWithAndWithoutPse) {
  for (const Level root_level : {Level::k1G, Level::k512G, Level::k256T}) {
    for (const bool pse : {false, true}) OneGuest(Mode::k32, pse, root_level, false);
  }
}
TEST(ShadowRootsTest, C8_A32BitL1NptWithAndWithoutPseUnder4And5Levels) {
  for (const Level root_level : {Level::k512G, Level::k256T}) {
    for (const bool pse : {false, true}) OneGuest(Mode::k32, pse, root_level, true);
  }
}
TEST(ShadowRootsTest, C8_APaeL1Npt) {
  for (const Level root_level : {Level::k512G, Level::k256T}) {
    OneGuest(Mode::kPae, true, root_level, true);
  }
}
TEST(ShadowRootsTest, C8_A4LevelL1UnderA5LevelShadow) {
  OneGuest(Mode::k4, true, Level::k256T, true);
  OneGuest(Mode::k5, true, Level::k256T, true);
}

TEST(ShadowRootsTest, AGuestWithDeeperTablesThanItsShadowIsRefusedWithTheNextStep) {
  Guest guest(Level::k512G);
  GuestShape shape;
  shape.top = Level::k256T;
  ShadowRoots roots(guest.machine.tables);
  PreloadedTables preload(guest.machine.pool);
  const auto loaded = roots.Load(guest.machine.turn(), {shape, Gpa(0x1000)}, preload);
  EXPECT_TRUE(absl::IsUnimplemented(loaded.status()));
  EXPECT_NE(loaded.status().message().find("walks more levels"), std::string::npos);
}

}  // namespace
}  // namespace twinroot::mmu
