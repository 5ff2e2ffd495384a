#include "mmu/vmx/tlb.h"

#include "gtest/gtest.h"

namespace twinroot::mmu::vmx {
namespace {

constexpr Hpa kRoot(0x1000);
constexpr Hpa kOtherRoot(0x2000);

EptTranslation Page(uint64_t hpa, Level level) { return {Hpa(hpa), level, Access::All(), true}; }

TEST(TlbTest, RemembersPagesOfEverySizeByRoot) {
  Tlb tlb;
  tlb.Insert(kRoot, HwGfn(5), Page(0x5000, Level::k4K));
  tlb.Insert(kRoot, HwGfn(0x200), Page(0x20'0000, Level::k2M));
  tlb.Insert(kRoot, HwGfn(0x80'0000), Page(0x4000'0000, Level::k1G));
  ASSERT_NE(tlb.Lookup(kRoot, HwGfn(5)), nullptr);
  EXPECT_EQ(tlb.Lookup(kRoot, HwGfn(5))->page, Hpa(0x5000));
  EXPECT_EQ(tlb.Lookup(kRoot, HwGfn(6)), nullptr);
  ASSERT_NE(tlb.Lookup(kRoot, HwGfn(0x3FF)), nullptr);
  EXPECT_EQ(tlb.Lookup(kRoot, HwGfn(0x3FF))->page, Hpa(0x20'0000));
  EXPECT_EQ(tlb.Lookup(kRoot, HwGfn(0x400)), nullptr);
  ASSERT_NE(tlb.Lookup(kRoot, HwGfn(0x83'FFFF)), nullptr);
  EXPECT_EQ(tlb.Lookup(kRoot, HwGfn(0x83'FFFF))->page, Hpa(0x4000'0000));
  EXPECT_EQ(tlb.Lookup(kOtherRoot, HwGfn(5)), nullptr);
}

TEST(TlbTest, IsBoundedAndANewPageTakesThePlaceOfAnOldOne) {
  Tlb tlb;
  tlb.Insert(kRoot, HwGfn(7), Page(0x7000, Level::k4K));
  tlb.Insert(kRoot, HwGfn(7 + Tlb::kEntries4K), Page(0x9000, Level::k4K));
  EXPECT_EQ(tlb.Lookup(kRoot, HwGfn(7)), nullptr);
  EXPECT_NE(tlb.Lookup(kRoot, HwGfn(7 + Tlb::kEntries4K)), nullptr);
}

struct FlushCase {
  const char* what;
  Hpa root;
  uint64_t first, count;
  bool keeps_4k, keeps_2m;  // 4K page 0x205 of another table, 2M page [0x400, 0x600)
};

TEST(TlbTest, FlushRangeForgetsEveryPageThatItTouchesAndNoOther) {
  const FlushCase cases[] = {
      {"the 4K page itself", kRoot, 0x205, 1, false, true},
      {"just below", kRoot, 0x204, 1, true, true},
      {"just above", kRoot, 0x206, 1, true, true},
      {"empty", kRoot, 0x205, 0, true, true},
      {"one frame inside the 2M page", kRoot, 0x4FF, 1, true, false},
      {"its last frame", kRoot, 0x5FF, 1, true, false},
      {"behind the 2M page", kRoot, 0x600, 100, true, true},
      {"both, a long range", kRoot, 0, 1 << 20, false, false},
      {"everything, wrapping", kRoot, 1, ~uint64_t{0}, false, false},
      {"another root", kOtherRoot, 0, ~uint64_t{0}, true, true},
      {"a range that only shares slots", kRoot, 0x205 + Tlb::kEntries4K, 1, true, true},
  };
  for (const FlushCase& c : cases) {
    SCOPED_TRACE(c.what);
    Tlb tlb;
    tlb.Insert(kRoot, HwGfn(0x205), Page(0x5000, Level::k4K));
    tlb.Insert(kRoot, HwGfn(0x400), Page(0x20'0000, Level::k2M));
    tlb.FlushRange(c.root, HwGfn(c.first), c.count);
    EXPECT_EQ(tlb.Lookup(kRoot, HwGfn(0x205)) != nullptr, c.keeps_4k);
    EXPECT_EQ(tlb.Lookup(kRoot, HwGfn(0x4AB)) != nullptr, c.keeps_2m);
  }
}

TEST(TlbTest, FlushAllForgetsEveryRoot) {
  Tlb tlb;
  tlb.Insert(kRoot, HwGfn(1), Page(0x5000, Level::k4K));
  tlb.Insert(kOtherRoot, HwGfn(0x80'0000), Page(0x4000'0000, Level::k1G));
  tlb.FlushAll();
  EXPECT_EQ(tlb.Lookup(kRoot, HwGfn(1)), nullptr);
  EXPECT_EQ(tlb.Lookup(kOtherRoot, HwGfn(0x80'0000)), nullptr);
}

}  // namespace
}  // namespace twinroot::mmu::vmx
