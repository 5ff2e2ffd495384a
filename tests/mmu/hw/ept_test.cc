// F1: the words of the hardware, bit for bit. The static_asserts beside the definitions state
// single words; here are the rules over all levels, rights and widths.
#include <gtest/gtest.h>

#include <string>

#include "mmu/hw/ept_capabilities.h"
#include "mmu/hw/ept_entry.h"
#include "mmu/hw/ept_pointer.h"
#include "mmu/hw/ept_violation.h"
#include "mmu/hw/soft_bits.h"

namespace twinroot::mmu {
namespace {

constexpr Level kLevels[] = {Level::k4K, Level::k2M, Level::k1G, Level::k512G, Level::k256T};

TEST(EptTest, F1_RightsThatAreMisconfigurations) {
  EptCapabilities no_execute_only;
  no_execute_only.execute_only = false;
  for (uint64_t rights = 0; rights < 8; ++rights) {
    const EptEntry leaf((uint64_t{6} << 3) | rights);
    const bool writes_unread = rights == 2 || rights == 6;
    EXPECT_EQ(IsEptMisconfiguration(leaf, Level::k4K, {}, 52), writes_unread) << rights;
    EXPECT_EQ(IsEptMisconfiguration(leaf, Level::k4K, no_execute_only, 52),
              writes_unread || rights == 4)
        << rights;
  }
}

TEST(EptTest, F1_ModeBasedExecuteMakesBit10ARight) {
  EptCapabilities mode_based;
  mode_based.mode_based_execute = true;
  const EptEntry user_only((uint64_t{6} << 3) | EptEntry::kExecuteUser);
  EXPECT_FALSE(IsEptMisconfiguration(user_only, Level::k4K, mode_based, 52));
  mode_based.execute_only = false;
  EXPECT_TRUE(IsEptMisconfiguration(user_only, Level::k4K, mode_based, 52));
  EXPECT_FALSE(IsEptMisconfiguration(user_only, Level::k4K, {}, 52));  // not present at all
}

TEST(EptTest, F1_AddressesBeyondMaxphyaddrAreMisconfigurationsAtEveryLevel) {
  for (int maxphyaddr = 39; maxphyaddr <= 52; ++maxphyaddr) {
    for (int bit = 30; bit < 52; ++bit) {
      for (const Level level : kLevels) {
        const uint64_t word = (uint64_t{1} << bit) | (level == Level::k4K ? 0x37 : 0x7);
        EXPECT_EQ(IsEptMisconfiguration(EptEntry(word), level, {}, maxphyaddr), bit >= maxphyaddr)
            << "bit " << bit << " width " << maxphyaddr << " level " << static_cast<int>(level);
      }
    }
  }
}

TEST(EptTest, F1_LowBitsOfLargePagesAreReserved) {
  for (const Level level : {Level::k2M, Level::k1G}) {
    for (int bit = 12; bit < 40; ++bit) {
      const EptEntry leaf((uint64_t{1} << bit) | 0xB7);
      EXPECT_EQ(IsEptMisconfiguration(leaf, level, {}, 52),
                (uint64_t{1} << bit) < BytesPerEntry(level))
          << bit;
    }
  }
}

TEST(EptTest, F1_TablesKeepBits6To3ClearAndTopLevelsBit7) {
  for (const Level level : {Level::k2M, Level::k1G, Level::k512G, Level::k256T}) {
    for (int bit = 3; bit <= 7; ++bit) {
      const EptEntry entry(0x4000'0007 | (uint64_t{1} << bit));
      const bool becomes_leaf = bit == 7 && level <= Level::k1G;
      EXPECT_EQ(IsEptMisconfiguration(entry, level, {}, 52), !becomes_leaf) << bit;
    }
  }
}

TEST(EptTest, F1_LargePagesWithoutTheCapabilityAreMisconfigurations) {
  EptCapabilities small;
  small.page_1g = small.page_2m = false;
  EXPECT_TRUE(IsEptMisconfiguration(EptEntry(0x4000'00B7), Level::k2M, small, 52));
  EXPECT_TRUE(IsEptMisconfiguration(EptEntry(0x4000'00B7), Level::k1G, small, 52));
  EXPECT_FALSE(IsEptMisconfiguration(EptEntry(0x4000'0037), Level::k4K, small, 52));
}

TEST(EptTest, F1_ReservedMemoryTypesAreMisconfigurationsOfLeavesOnly) {
  for (uint64_t type = 0; type < 8; ++type) {
    const bool reserved = type == 2 || type == 3 || type == 7;
    EXPECT_EQ(IsEptMisconfiguration(EptEntry((type << 3) | 7), Level::k4K, {}, 52), reserved);
  }
}

TEST(EptTest, F1_WhatWeMakeIsNeverMisconfigured) {
  for (const Level level : {Level::k4K, Level::k2M, Level::k1G}) {
    const EptEntry leaf =
        EptEntry::Leaf(Hpa(uint64_t{5} << 30), level, Access::All(), MemType::kWriteBack);
    EXPECT_FALSE(IsEptMisconfiguration(leaf, level, {}, 39));
    EXPECT_TRUE(leaf.IsLeaf(level));
    EXPECT_EQ(leaf.address(), Hpa(uint64_t{5} << 30));
    EXPECT_EQ(leaf.access(), Access::All());
  }
  for (const Level level : {Level::k2M, Level::k1G, Level::k512G, Level::k256T}) {
    const EptEntry table = EptEntry::Table(Hpa(0x7000));
    EXPECT_FALSE(IsEptMisconfiguration(table, level, {}, 39));
    EXPECT_FALSE(table.IsLeaf(level));
  }
}

TEST(EptTest, F1_FrozenAndEmptyReadAsNotPresentToEveryProcessor) {
  EptCapabilities mode_based;
  mode_based.mode_based_execute = true;
  for (const EptEntry entry : {kFrozenEntry, kEmptyEntry}) {
    for (const Level level : kLevels) {
      EXPECT_FALSE(entry.Present(true));
      EXPECT_FALSE(IsEptMisconfiguration(entry, level, mode_based, 39));
    }
  }
}

TEST(EptTest, F1_PointerSaysWalkLengthTypeAndAccessedDirty) {
  for (const int levels : {4, 5}) {
    for (const bool ad : {false, true}) {
      const EptPointer pointer = EptPointer::Make(Hpa(0xABC000), levels, ad);
      EXPECT_EQ(pointer.levels(), levels);
      EXPECT_EQ(pointer.accessed_dirty(), ad);
      EXPECT_EQ(pointer.root(), Hpa(0xABC000));
      EXPECT_TRUE(pointer.Valid({}, 39));
    }
  }
  EptCapabilities old;
  old.accessed_dirty = old.walk_length_5 = false;
  EXPECT_FALSE(EptPointer::Make(Hpa(0), 4, true).Valid(old, 39));
  EXPECT_FALSE(EptPointer::Make(Hpa(0), 5, false).Valid(old, 39));
  EXPECT_TRUE(EptPointer::Make(Hpa(0), 4, false).Valid(old, 39));
}

TEST(EptTest, F1_QualificationKeepsNeedAndRights) {
  const Access kinds[] = {Access::Read(), Access::Write(), Access::Fetch()};
  for (const Access needed : kinds) {
    for (const Access allowed : {Access::None(), Access::Read(), Access::Read() | Access::Write(),
                                 Access::Fetch(), Access::All()}) {
      const EptViolation violation = EptViolation::Make(needed, allowed);
      EXPECT_EQ(violation.needed(), needed);
      EXPECT_EQ(violation.allowed(), allowed);
      EXPECT_TRUE(violation.linear_valid());
      EXPECT_FALSE(violation.guest_page_walk());
    }
  }
}

TEST(EptTest, F1_IndexTakesNineBitsOfTheFrame) {
  const HwGfn frame((uint64_t{1} << 36) | (uint64_t{2} << 27) | (uint64_t{3} << 18) |
                    (uint64_t{4} << 9) | 5);
  EXPECT_EQ(EptIndex(frame, Level::k4K), 5u);
  EXPECT_EQ(EptIndex(frame, Level::k2M), 4u);
  EXPECT_EQ(EptIndex(frame, Level::k1G), 3u);
  EXPECT_EQ(EptIndex(frame, Level::k512G), 2u);
  EXPECT_EQ(EptIndex(frame, Level::k256T), 1u);
}

}  // namespace
}  // namespace twinroot::mmu
