// The words that software puts into entries for itself: MMIO markers and saved rights. What a
// processor does with them is in tests/mmu/vmx.
#include <gtest/gtest.h>

#include <cstdint>
#include <optional>

#include "mmu/hw/ept_capabilities.h"
#include "mmu/hw/ept_entry.h"
#include "mmu/hw/ept_pointer.h"
#include "mmu/hw/mmio_entry.h"
#include "mmu/hw/soft_bits.h"

namespace twinroot::mmu {
namespace {

constexpr MmioEntryForm kForms[] = {MmioEntryForm::kMisconfigured, MmioEntryForm::kNotPresent};
constexpr Level kLevels[] = {Level::k4K, Level::k2M, Level::k1G, Level::k512G, Level::k256T};

TEST(SoftEntryTest, F9_EveryGenerationComesBackFromItsMmioEntry) {
  for (const MmioEntryForm form : kForms) {
    for (uint64_t generation = 0; generation <= kMmioGenerationMask; ++generation) {
      const EptEntry entry = MmioEntry::Make(form, generation);
      ASSERT_EQ(MmioEntry::FormOf(entry), form);
      ASSERT_EQ(MmioEntry::GenerationOf(entry), generation);
      ASSERT_FALSE(IsFrozen(entry) || IsEmpty(entry) || HasSavedAccess(entry)) << generation;
    }
    // One more than fits is generation 0 again: that is when all of them have to go.
    EXPECT_EQ(MmioEntry::Make(form, kMmioGenerationMask + 1), MmioEntry::Make(form, 0));
  }
}

TEST(SoftEntryTest, F9_MisconfiguredEntriesAreSoForEveryProcessorAndTheOthersAbsent) {
  for (int i = 0; i < 8; ++i) {
    EptCapabilities cpu;
    cpu.execute_only = i & 1;
    cpu.mode_based_execute = i & 2;
    const int maxphyaddr = i & 4 ? 39 : 52;
    for (uint64_t generation = 0; generation <= kMmioGenerationMask; generation += 37) {
      for (const Level level : kLevels) {
        EXPECT_TRUE(IsEptMisconfiguration(
            MmioEntry::Make(MmioEntryForm::kMisconfigured, generation), level, cpu, maxphyaddr));
      }
      EXPECT_FALSE(
          MmioEntry::Make(MmioEntryForm::kNotPresent, generation).Present(cpu.mode_based_execute));
    }
  }
}

TEST(SoftEntryTest, F9_NothingThatTheEngineMakesLooksLikeAnMmioEntry) {
  const Hpa last_gigabyte((uint64_t{1} << 52) - (uint64_t{1} << 30));  // has bit 51
  EXPECT_FALSE(IsMmioEntry(EptEntry::Table(last_gigabyte)));
  for (const Level level : {Level::k4K, Level::k2M, Level::k1G}) {
    for (uint8_t rights = 0; rights < 8; ++rights) {
      const EptEntry leaf =
          EptEntry::Leaf(last_gigabyte, level, Access::FromBits(rights), MemType::kUncacheable);
      const EptEntry marked(leaf.raw() | kMmuPresent);
      EXPECT_FALSE(IsMmioEntry(marked));
      EXPECT_FALSE(IsMmioEntry(WithSavedAccess(marked)));
    }
  }
}

TEST(SoftEntryTest, F6_AccessTrackingTakesAllRightsAndGivesReadAndFetchBack) {
  for (const Level level : {Level::k4K, Level::k2M, Level::k1G}) {
    for (const Access rights : {Access::Read(), Access::Read() | Access::Write(), Access::Fetch(),
                                Access::Read() | Access::Fetch(), Access::All()}) {
      for (const uint64_t kept : {uint64_t{0}, kMayWrite, kNxHugePage, EptEntry::kDirty}) {
        const EptEntry leaf(
            EptEntry::Leaf(Hpa(uint64_t{5} << 30), level, rights, MemType::kWriteBack).raw() |
            kMmuPresent | kept);
        const EptEntry saved = WithSavedAccess(leaf);
        EXPECT_FALSE(saved.Present(true));
        EXPECT_TRUE(HasSavedAccess(saved));
        EXPECT_FALSE(HasSavedAccess(leaf));
        EXPECT_EQ(saved.address(), leaf.address());
        // W is never saved, so it cannot come back by itself.
        EXPECT_EQ(WithRestoredAccess(saved), leaf.WithAccess(rights.Without(Access::Write())));
        // A second pass over the same leaf loses nothing.
        EXPECT_EQ(WithSavedAccess(saved), saved);
        EXPECT_FALSE(IsFrozen(saved));
      }
    }
  }
}

TEST(SoftEntryTest, OnlyALinkOfTheEnginesIsALink) {
  const EptEntry link = LinkTo(Hpa(0x7000));
  EXPECT_EQ(link.address(), Hpa(0x7000));
  EXPECT_TRUE(IsMmuPresent(link) && IsMmuLink(link) && link.Present(false));
  for (const Level level : {Level::k2M, Level::k1G}) {
    const EptEntry page =
        EptEntry::Leaf(Hpa(uint64_t{5} << 30), level, Access::All(), MemType::kWriteBack);
    EXPECT_FALSE(IsMmuPresent(page));
    EXPECT_TRUE(IsMmuPresent(WithMmuPresent(page)));
    EXPECT_FALSE(IsMmuLink(WithMmuPresent(page)));
    EXPECT_FALSE(IsMmuLink(WithSavedAccess(WithMmuPresent(page))));
  }
  for (const EptEntry other : {kEmptyEntry, kFrozenEntry, kEmptySuppressVe, kFrozenSuppressVe,
                               MmioEntry::Make(MmioEntryForm::kMisconfigured, 0x3'FFFF)}) {
    EXPECT_FALSE(IsMmuPresent(other) || IsMmuLink(other));
  }
}

TEST(SoftEntryTest, F8_FetchWithheldForThePagesSizeComesBackAsItWas) {
  for (uint8_t rights = 0; rights < 8; ++rights) {
    const Access access = Access::FromBits(rights);
    const EptEntry leaf = WithMmuPresent(
        EptEntry::Leaf(Hpa(uint64_t{5} << 30), Level::k2M, access, MemType::kWriteBack));
    const EptEntry withheld = WithoutHugeFetch(leaf);
    EXPECT_EQ(withheld.access(), access.Without(Access::Fetch()));
    EXPECT_FALSE(withheld.user_execute());
    EXPECT_EQ(IsNxHugePage(withheld), access.fetch());
    EXPECT_EQ(WithHugeFetch(leaf), leaf);
    if (!access.read()) continue;  // nothing is left then, as if all had been taken for a while
    EXPECT_EQ(WithHugeFetch(withheld), leaf);
    // All rights taken away for a while: so is what comes back.
    const EptEntry saved = WithHugeFetch(WithSavedAccess(WithoutWrite(withheld)));
    EXPECT_FALSE(saved.Present(true));
    EXPECT_EQ(saved, WithSavedAccess(WithoutWrite(leaf)));
  }
}

TEST(SoftEntryTest, FlagsAndPageSizeAreTheOnlyBitsThatTheirFunctionsTouch) {
  const EptEntry leaf(0x20'0CB7);
  constexpr uint64_t kFlags = EptEntry::kAccessed | EptEntry::kDirty;
  for (const uint64_t flags : {uint64_t{0}, EptEntry::kAccessed, EptEntry::kDirty, kFlags}) {
    const EptEntry other(~kFlags | flags);
    EXPECT_EQ(leaf.WithFlagsOf(other).raw(), leaf.raw() | flags);
    EXPECT_EQ(EptEntry(leaf.raw() | kFlags).WithFlagsOf(other).raw(), leaf.raw() | kFlags);
  }
  EXPECT_EQ(leaf.WithPageSize(false).raw(), 0x20'0C37u);
  EXPECT_EQ(leaf.WithPageSize(false).WithPageSize(true), leaf);
}

// A processor without the #VE control ignores bit 63, so both spellings are the same slot.
TEST(SoftEntryTest, EmptyAndFrozenAreRecognizedWithAndWithoutSuppressVe) {
  for (const bool suppress : {false, true}) {
    EXPECT_TRUE(IsEmpty(kEmptyEntry.WithSuppressVe(suppress)));
    EXPECT_TRUE(IsFrozen(kFrozenEntry.WithSuppressVe(suppress)));
  }
  for (int bit = 0; bit < 63; ++bit) {
    const EptEntry other(uint64_t{1} << bit);
    EXPECT_FALSE(IsEmpty(other)) << bit;
    EXPECT_FALSE(IsFrozen(EptEntry(kFrozenEntry.raw() ^ other.raw()))) << bit;
  }
}

TEST(SoftEntryTest, F1_CapabilitiesAreReadBitByBit) {
  EXPECT_EQ(EptCapabilities::FromMsr(0, false), (EptCapabilities{.execute_only = false,
                                                                 .walk_length_4 = false,
                                                                 .walk_length_5 = false,
                                                                 .page_2m = false,
                                                                 .page_1g = false,
                                                                 .accessed_dirty = false,
                                                                 .uncacheable_tables = false,
                                                                 .write_back_tables = false,
                                                                 .invept_single_context = false,
                                                                 .invept_all_contexts = false}));
  struct {
    int bit;
    bool EptCapabilities::*says;
  } const bits[] = {
      {0, &EptCapabilities::execute_only},
      {6, &EptCapabilities::walk_length_4},
      {7, &EptCapabilities::walk_length_5},
      {8, &EptCapabilities::uncacheable_tables},
      {14, &EptCapabilities::write_back_tables},
      {16, &EptCapabilities::page_2m},
      {17, &EptCapabilities::page_1g},
      {21, &EptCapabilities::accessed_dirty},
      {22, &EptCapabilities::advanced_exit_information},
      {23, &EptCapabilities::supervisor_shadow_stack},
      {25, &EptCapabilities::invept_single_context},
      {26, &EptCapabilities::invept_all_contexts},
  };
  for (const auto& [bit, says] : bits) {
    for (const auto& [other, said] : bits) {
      const uint64_t invept = uint64_t{1} << 20;
      EXPECT_EQ(EptCapabilities::FromMsr(uint64_t{1} << bit | invept, false).*said, bit == other)
          << bit << " " << other;
    }
  }
}

TEST(SoftEntryTest, F1_EptPointersAreCheckedBitByBit) {
  const uint64_t good = 0x5'5000 | 0x5E;
  for (int maxphyaddr = 39; maxphyaddr <= 52; ++maxphyaddr) {
    for (int bit = 7; bit < 64; ++bit) {
      const bool address = bit >= 12 && bit < maxphyaddr;
      EXPECT_EQ(EptPointer(good ^ (uint64_t{1} << bit)).Valid({}, maxphyaddr), address) << bit;
    }
  }
  for (uint64_t low = 0; low < 64; ++low) {
    const uint64_t type = low & 7, length = low >> 3;
    EXPECT_EQ(EptPointer(0x5'5000 | low).Valid({}, 52),
              (type == 0 || type == 6) && (length == 3 || length == 4))
        << low;
    EXPECT_EQ(EptPointer(0x5'5000 | low).Valid({.write_back_tables = false}, 52),
              type == 0 && (length == 3 || length == 4));
  }
}

}  // namespace
}  // namespace twinroot::mmu
