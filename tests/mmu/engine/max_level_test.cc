#include "mmu/engine/max_level.h"

#include <gtest/gtest.h>

namespace twinroot::mmu {
namespace {

LevelLimits Everything() {
  return {.gfn = Gfn(700),
          .pfn = Pfn((1 << 18) + 700),
          .slot = {Gfn(0), 4096},
          .backing = Level::k1G,
          .external = Level::k1G,
          .capabilities = {}};
}
constexpr auto kUniform = [](Level) { return true; };

TEST(MaxLevelTest, D3_EachLimitAloneKeepsTheLeafSmall) {
  EXPECT_EQ(MaxLevel(Everything(), kUniform), Level::k2M);
  LevelLimits limits = Everything();
  limits.slot = {Gfn(513), 4096};
  EXPECT_EQ(MaxLevel(limits, kUniform), Level::k4K) << "slot begins inside";
  limits = Everything();
  limits.slot = {Gfn(0), 1000};
  EXPECT_EQ(MaxLevel(limits, kUniform), Level::k4K) << "slot ends inside";
  limits = Everything();
  limits.pfn = limits.pfn + 1;
  EXPECT_EQ(MaxLevel(limits, kUniform), Level::k4K) << "frames are not aligned alike";
  limits = Everything();
  limits.backing = Level::k4K;
  EXPECT_EQ(MaxLevel(limits, kUniform), Level::k4K) << "backing";
  limits = Everything();
  limits.external = Level::k4K;
  EXPECT_EQ(MaxLevel(limits, kUniform), Level::k4K) << "external table";
  limits = Everything();
  limits.capabilities.page_2m = false;
  EXPECT_EQ(MaxLevel(limits, kUniform), Level::k4K) << "capability";
  EXPECT_EQ(MaxLevel(Everything(), [](Level level) { return level < Level::k2M; }), Level::k4K)
      << "mixed attributes";
}

}  // namespace
}  // namespace twinroot::mmu
