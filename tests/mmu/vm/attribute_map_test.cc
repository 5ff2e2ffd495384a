#include "mmu/vm/attribute_map.h"

#include <gtest/gtest.h>

#include <random>
#include <utility>
#include <vector>

namespace twinroot::mmu {
namespace {

constexpr auto kPrivate = MemoryKind::kPrivate;
constexpr auto kShared = MemoryKind::kShared;

class AttributeMapTest : public testing::Test {
 protected:
  void Set(uint64_t first, uint64_t count, MemoryKind kind) {
    const GfnRange range{Gfn(first), count};
    ASSERT_TRUE(map_.Prepare(range).ok());
    const MmuLock::Exclusive lock(lock_);
    map_.Set(lock, range, kind);
  }
  MemoryKind Get(uint64_t gfn) {
    const MmuLock::Shared lock(lock_);
    return map_.Get(lock, Gfn(gfn));
  }
  bool UniformAt(uint64_t gfn, Level level) {
    const MmuLock::Shared lock(lock_);
    return map_.UniformAt(lock, Gfn(gfn), level);
  }
  std::vector<std::pair<GfnRange, MemoryKind>> Runs(uint64_t first, uint64_t count) {
    const MmuLock::Shared lock(lock_);
    std::vector<std::pair<GfnRange, MemoryKind>> runs;
    map_.ForEachRun(lock, {Gfn(first), count},
                    [&runs](GfnRange run, MemoryKind kind) { runs.emplace_back(run, kind); });
    return runs;
  }

  MmuLock lock_;
  AttributeMap map_;
};

TEST_F(AttributeMapTest, FramesThatWereNeverSetAreShared) {
  EXPECT_EQ(Get(0), kShared);
  EXPECT_EQ(Get((uint64_t{1} << 40) - 1), kShared);
  EXPECT_EQ(map_.bytes(), 0u);
}

TEST_F(AttributeMapTest, OneFrameAmongMillionsIsSetAlone) {
  Set(0, uint64_t{1} << 30, kPrivate);
  Set(12345678, 1, kShared);
  EXPECT_EQ(Get(12345677), kPrivate);
  EXPECT_EQ(Get(12345678), kShared);
  EXPECT_EQ(Get(12345679), kPrivate);
  EXPECT_EQ(Runs(0, uint64_t{1} << 30).size(), 3u);
}

TEST_F(AttributeMapTest, UniformAtALevelMeansAHugePageMayStandThere) {
  Set(0, 1 << 20, kPrivate);
  EXPECT_TRUE(UniformAt(5, Level::k1G));
  Set(700, 1, kShared);
  EXPECT_FALSE(UniformAt(600, Level::k2M));
  EXPECT_FALSE(UniformAt(0, Level::k1G));
  EXPECT_TRUE(UniformAt(0, Level::k2M));
  EXPECT_TRUE(UniformAt(700, Level::k4K));
}

TEST_F(AttributeMapTest, EqualChildrenCollapseUpwards) {
  Set(0, uint64_t{1} << 20, kPrivate);
  const size_t before = map_.bytes();
  for (uint64_t i = 0; i < 1024; ++i) Set(4096 + i, 1, kShared);
  EXPECT_GT(map_.bytes(), before);
  EXPECT_TRUE(UniformAt(4096, Level::k2M));
  Set(4096, 1024, kPrivate);
  EXPECT_EQ(map_.bytes(), before);
}

TEST_F(AttributeMapTest, PrepareChangesNoAnswerAndCollapseTakesItBack) {
  Set(0, 1 << 20, kPrivate);
  const size_t before = map_.bytes();
  const GfnRange range{Gfn(700), 5000};
  ASSERT_TRUE(map_.Prepare(range).ok());
  EXPECT_GT(map_.bytes(), before);
  EXPECT_EQ(Runs(0, 1 << 20).size(), 1u);
  const MmuLock::Exclusive lock(lock_);
  map_.Collapse(lock, range);
  EXPECT_EQ(map_.bytes(), before);
}

TEST_F(AttributeMapTest, SizeOfARangeCostsNoMemory) {
  Set(0, uint64_t{1} << 30, kPrivate);
  const size_t before = map_.bytes();
  Set(1, (uint64_t{1} << 28) - 2, kShared);
  // Two paths of splits, however many frames lie between.
  EXPECT_LT(map_.bytes() - before, 8 * 4096u);
}

TEST_F(AttributeMapTest, AgreesWithAFlatArrayUnderRandomRanges) {
  constexpr uint64_t kFrames = 5000;
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  std::vector<MemoryKind> flat(kFrames, kShared);
  for (int round = 0; round < 400; ++round) {
    const uint64_t first = random() % kFrames;
    const uint64_t count = 1 + random() % (kFrames - first);
    const auto kind = static_cast<MemoryKind>(random() % 2);
    Set(first, count, kind);
    std::fill_n(flat.begin() + first, count, kind);
    uint64_t at = 0;
    for (const auto& [run, run_kind] : Runs(0, kFrames)) {
      ASSERT_EQ(run.first, Gfn(at));
      ASSERT_TRUE(at == 0 || flat[at - 1] != run_kind) << "run is not maximal";
      for (; at < run.end().value; ++at) ASSERT_EQ(flat[at], run_kind) << at;
    }
    ASSERT_EQ(at, kFrames);
    for (uint64_t base = 0; base + 512 <= kFrames; base += 512) {
      bool same = true;
      for (uint64_t i = 0; i < 512; ++i) same = same && flat[base + i] == flat[base];
      ASSERT_EQ(UniformAt(base + 17, Level::k2M), same) << base;
      ASSERT_EQ(Get(base + 17), flat[base + 17]);
    }
  }
  Set(0, 5120, kShared);
  EXPECT_EQ(map_.bytes(), 0u);
}

}  // namespace
}  // namespace twinroot::mmu
