#include "mmu/vm/gpa_layout.h"

#include <gtest/gtest.h>

namespace twinroot::mmu {
namespace {

constexpr uint64_t Bit(int n) { return uint64_t{1} << n; }

TEST(GpaLayoutTest, A1_GfnIsTheAddressWithoutStolenBits) {
  const GpaLayout layout = *GpaLayout::Create(47, 48, 46);
  const Gpa raw(Bit(47) | 0x1234'5678);
  EXPECT_EQ(layout.GfnOf(raw), Gfn(0x12345));
  EXPECT_EQ(layout.GfnOf(Gpa(0x1234'5678)), Gfn(0x12345));
  EXPECT_EQ(layout.KindOf(raw), MemoryKind::kShared);
  EXPECT_EQ(layout.KindOf(Gpa(0x1234'5678)), MemoryKind::kPrivate);
}

TEST(GpaLayoutTest, A2_WalkUsesTheRawAddress) {
  const GpaLayout layout = *GpaLayout::Create(51, 57, 52);
  EXPECT_EQ(layout.HwGfnOf(Gfn(5), MemoryKind::kPrivate), HwGfn(5));
  EXPECT_EQ(layout.HwGfnOf(Gfn(5), MemoryKind::kShared), HwGfn(Bit(51 - 12) | 5));
  EXPECT_EQ(layout.GfnOf(HwGfn(Bit(51 - 12) | 5)), Gfn(5));
  EXPECT_EQ(layout.GpaOf(Gfn(5), MemoryKind::kShared, 7), Gpa(Bit(51) | 0x5007));
}

TEST(GpaLayoutTest, A2_SharedBitMustBePartOfTheWalk) {
  EXPECT_TRUE(absl::IsInvalidArgument(GpaLayout::Create(51, 48, 52).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(GpaLayout::Create(48, 48, 52).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(GpaLayout::Create(31, 48, 46).status()));
  EXPECT_TRUE(GpaLayout::Create(32, 48, 46).ok());
  EXPECT_TRUE(GpaLayout::Create(51, 57, 52).ok());
}

TEST(GpaLayoutTest, WidthsOutsideTheArchitectureAreRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(GpaLayout::Create(40, 47, 46).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(GpaLayout::Create(40, 48, 35).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(GpaLayout::Create(40, 48, 53).status()));
}

TEST(GpaLayoutTest, A3_ReservedBitsAreCheckedAfterStolenBitsAreRemoved) {
  const GpaLayout layout = *GpaLayout::Create(47, 48, 40);
  EXPECT_TRUE(layout.CheckReserved(Gpa(Bit(47) | 0x1000)).ok());
  EXPECT_TRUE(layout.CheckReserved(Gpa(Bit(40) - 1)).ok());
  for (int bit = 40; bit < 64; ++bit) {
    EXPECT_EQ(layout.CheckReserved(Gpa(Bit(bit))).ok(), bit == 47) << bit;
    EXPECT_FALSE(bit != 47 && layout.CheckReserved(Gpa(Bit(47) | Bit(bit))).ok()) << bit;
  }
}

TEST(GpaLayoutTest, GfnLimitIsTheFirstFrameThatNoUnaliasedAddressNames) {
  EXPECT_EQ(GpaLayout::Create(47, 48, 40)->gfn_limit(), Gfn(Bit(28)));
  EXPECT_EQ(GpaLayout::Create(39, 48, 46)->gfn_limit(), Gfn(Bit(27)));
  EXPECT_EQ(GpaLayout::Create(std::nullopt, 48, 52)->gfn_limit(), Gfn(Bit(36)));
}

TEST(GpaLayoutTest, WithoutASharedBitEverythingIsPrivate) {
  const GpaLayout layout = *GpaLayout::Create(std::nullopt, 48, 46);
  EXPECT_EQ(layout.KindOf(Gpa(~uint64_t{0})), MemoryKind::kPrivate);
  EXPECT_FALSE(layout.HasStolenBits(Gpa(~uint64_t{0})));
}

}  // namespace
}  // namespace twinroot::mmu
