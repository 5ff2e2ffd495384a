#include "mmu/types/gfn_range.h"

#include <gtest/gtest.h>

namespace twinroot::mmu {
namespace {

TEST(GfnRangeTest, IntersectionOfDisjointRangesIsEmpty) {
  EXPECT_TRUE(Intersection({Gfn(0), 4}, {Gfn(4), 4}).empty());
  EXPECT_TRUE(Intersection({Gfn(8), 4}, {Gfn(0), 4}).empty());
}

TEST(GfnRangeTest, IntersectionIsWhatBothContain) {
  const GfnRange a{Gfn(2), 10};
  const GfnRange b{Gfn(8), 10};
  const GfnRange both = Intersection(a, b);
  for (uint64_t i = 0; i < 30; ++i) {
    EXPECT_EQ(both.Contains(Gfn(i)), a.Contains(Gfn(i)) && b.Contains(Gfn(i))) << i;
  }
}

TEST(GfnRangeTest, RangesThatTouchDoNotOverlap) {
  EXPECT_FALSE((GfnRange{Gfn(0), 4}.Overlaps({Gfn(4), 1})));
  EXPECT_TRUE((GfnRange{Gfn(0), 5}.Overlaps({Gfn(4), 1})));
}

}  // namespace
}  // namespace twinroot::mmu
