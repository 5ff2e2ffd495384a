#include "mmu/engine/max_level.h"

#include <gtest/gtest.h>

namespace twinroot::mmu {
namespace {

constexpr uint64_t kGib = uint64_t{1} << 18;

LevelLimits Everything() {
  return {.gfn = Gfn(kGib + 700),
          .pfn = Pfn(5 * kGib + 700),
          .slot = {Gfn(0), 4 * kGib},
          .backing = Level::k1G,
          .external = Level::k1G,
          .capabilities = {}};
}
constexpr auto kAlways = [](Level) { return true; };

void Expect(const LevelLimits& limits, Level level, LevelVeto veto) {
  const LevelChoice choice = ChooseLevel(limits, kAlways, kAlways);
  EXPECT_EQ(choice.level, level);
  EXPECT_EQ(choice.veto, veto);
}

TEST(MaxLevelTest, D3_WithoutAVetoALeafIsAsLargeAsLeavesGet) {
  Expect(Everything(), kLargestLeaf, LevelVeto::kNone);
}

TEST(MaxLevelTest, D3_TheCapabilityVetoesEachSizeAlone) {
  LevelLimits limits = Everything();
  limits.capabilities.page_1g = false;
  Expect(limits, Level::k2M, LevelVeto::kCapability);
  limits.capabilities.page_2m = false;
  Expect(limits, Level::k4K, LevelVeto::kCapability);
  // Without 2M pages there is no step to 1G pages.
  limits.capabilities.page_1g = true;
  Expect(limits, Level::k4K, LevelVeto::kCapability);
}

TEST(MaxLevelTest, D3_TheMemslotVetoesWhatReachesOverEitherEnd) {
  LevelLimits limits = Everything();
  limits.slot = {Gfn(kGib + 1), 3 * kGib};
  Expect(limits, Level::k2M, LevelVeto::kMemslot);
  limits.slot = {Gfn(kGib + 513), 3 * kGib};
  Expect(limits, Level::k4K, LevelVeto::kMemslot);
  limits.slot = {Gfn(0), 2 * kGib - 1};
  Expect(limits, Level::k2M, LevelVeto::kMemslot);
  limits.slot = {Gfn(0), kGib + 1000};
  Expect(limits, Level::k4K, LevelVeto::kMemslot);
  limits.slot = {Gfn(kGib), kGib};
  Expect(limits, Level::k1G, LevelVeto::kNone);
}

TEST(MaxLevelTest, D3_FramesThatAreNotAlignedAlikeVeto) {
  LevelLimits limits = Everything();
  limits.pfn = limits.pfn + 512;
  Expect(limits, Level::k2M, LevelVeto::kAlignment);
  limits.pfn = limits.pfn + 1;
  Expect(limits, Level::k4K, LevelVeto::kAlignment);
}

TEST(MaxLevelTest, D3_TheBackingVetoes) {
  LevelLimits limits = Everything();
  limits.backing = Level::k2M;
  Expect(limits, Level::k2M, LevelVeto::kBacking);
  limits.backing = Level::k4K;
  Expect(limits, Level::k4K, LevelVeto::kBacking);
}

TEST(MaxLevelTest, D3_TheExternalTableVetoes) {
  LevelLimits limits = Everything();
  limits.external = Level::k2M;
  Expect(limits, Level::k2M, LevelVeto::kExternal);
  limits.external = Level::k4K;
  Expect(limits, Level::k4K, LevelVeto::kExternal);
}

TEST(MaxLevelTest, D3_DirtyLoggingAndTheNxMitigationMakeEveryLeafSmall) {
  LevelLimits limits = Everything();
  limits.dirty_log = true;
  Expect(limits, Level::k4K, LevelVeto::kDirtyLog);
  limits = Everything();
  limits.nx_fetch = true;
  Expect(limits, Level::k4K, LevelVeto::kNxMitigation);
}

TEST(MaxLevelTest, D3_MixedAttributesAndF12_MixedMemoryTypesVeto) {
  for (const Level mixed : {Level::k2M, Level::k1G}) {
    const auto uniform = [mixed](Level level) { return level < mixed; };
    const LevelChoice attributes = ChooseLevel(Everything(), uniform, kAlways);
    EXPECT_EQ(attributes.level, Below(mixed));
    EXPECT_EQ(attributes.veto, LevelVeto::kAttributes);
    const LevelChoice types = ChooseLevel(Everything(), kAlways, uniform);
    EXPECT_EQ(types.level, Below(mixed));
    EXPECT_EQ(types.veto, LevelVeto::kMemTypes);
  }
}

TEST(MaxLevelTest, D3_AttributesAreOnlyAskedWhereALargeLeafCouldStand) {
  LevelLimits limits = Everything();
  limits.slot = {Gfn(kGib + 512), 512};
  Level asked = Level::k4K;
  ChooseLevel(
      limits,
      [&](Level level) {
        asked = level;
        return true;
      },
      kAlways);
  EXPECT_EQ(asked, Level::k2M);
}

TEST(MaxLevelTest, LeafRangeIsTheAlignedRangeAroundTheFrame) {
  EXPECT_EQ(LeafRange(Gfn(700), Level::k4K), (GfnRange{Gfn(700), 1}));
  EXPECT_EQ(LeafRange(Gfn(700), Level::k2M), (GfnRange{Gfn(512), 512}));
  EXPECT_EQ(LeafRange(Gfn(kGib + 700), Level::k1G), (GfnRange{Gfn(kGib), kGib}));
}

}  // namespace
}  // namespace twinroot::mmu
