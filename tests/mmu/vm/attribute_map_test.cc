#include "mmu/vm/attribute_map.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "tests/mmu/vm/failing_new.h"

namespace twinroot::mmu {
namespace {

constexpr MemoryAttributes kPrivate{MemoryKind::kPrivate};
constexpr MemoryAttributes kShared{MemoryKind::kShared};
constexpr MemoryAttributes kReadOnly{MemoryKind::kPrivate, Access::Write()};
constexpr MemoryAttributes kNoFetch{MemoryKind::kPrivate, Access::Fetch()};

constexpr uint64_t k2MFrames = FramesPerEntry(Level::k2M);
constexpr uint64_t k1GFrames = FramesPerEntry(Level::k1G);
constexpr uint64_t k512GFrames = FramesPerEntry(Level::k512G);
constexpr Gfn kLimit(k512GFrames* kEntriesPerTable);

using Runs = std::vector<std::pair<GfnRange, MemoryAttributes>>;

class AttributeMapTest : public testing::Test {
 protected:
  void Set(uint64_t first, uint64_t count, MemoryAttributes attributes) {
    const GfnRange range{Gfn(first), count};
    ASSERT_TRUE(map_.Prepare(turn_, range, attributes).ok());
    map_.Set(turn_, range, attributes);
    map_.Collapse(turn_, range);
  }
  MemoryAttributes Get(uint64_t gfn) { return map_.Get(EpochGuard(), Gfn(gfn)); }
  bool UniformAt(uint64_t gfn, Level level) {
    return map_.UniformAt(EpochGuard(), Gfn(gfn), level);
  }
  Runs RunsOf(uint64_t first, uint64_t count) {
    Runs runs;
    map_.ForEachRun(EpochGuard(), {Gfn(first), count},
                    [&runs](GfnRange run, MemoryAttributes is) { runs.emplace_back(run, is); });
    return runs;
  }

  Mutex mutex_;
  Turn turn_{mutex_};
  AttributeMap map_{kLimit};
};

TEST_F(AttributeMapTest, FramesThatWereNeverSetAreSharedAndDenyNothing) {
  EXPECT_EQ(Get(0), kShared);
  EXPECT_EQ(Get(kLimit.value - 1), kShared);
  EXPECT_EQ(map_.bytes(), 0u);
}

TEST_F(AttributeMapTest, OneFrameAmongMillionsIsSetAlone) {
  Set(0, k1GFrames * 4096, kPrivate);
  Set(12345678, 1, kShared);
  EXPECT_EQ(Get(12345677), kPrivate);
  EXPECT_EQ(Get(12345678), kShared);
  EXPECT_EQ(Get(12345679), kPrivate);
  EXPECT_EQ(RunsOf(0, k1GFrames * 4096).size(), 3u);
}

TEST_F(AttributeMapTest, BothSidesOfEveryWordOfTheTrunkAreToldApart) {
  for (const int bits : kAttributeSpanBits) {
    const uint64_t border = uint64_t{1} << bits;
    if (border >= kLimit.value) break;
    Set(border - 1, 2, kPrivate);
    EXPECT_EQ(Get(border - 2), kShared) << border;
    EXPECT_EQ(Get(border - 1), kPrivate) << border;
    EXPECT_EQ(Get(border), kPrivate) << border;
    EXPECT_EQ(Get(border + 1), kShared) << border;
    EXPECT_EQ(RunsOf(border - 100, 200), (Runs{{{Gfn(border - 100), 99}, kShared},
                                               {{Gfn(border - 1), 2}, kPrivate},
                                               {{Gfn(border + 1), 99}, kShared}}));
    Set(border - 1, 2, kShared);
  }
  EXPECT_EQ(map_.bytes(), 0u);
}

TEST_F(AttributeMapTest, UniformAtALevelMeansAHugePageMayStandThere) {
  Set(0, 4 * k1GFrames, kPrivate);
  EXPECT_TRUE(UniformAt(5, Level::k1G));
  EXPECT_TRUE(UniformAt(3 * k1GFrames, Level::k1G));
  EXPECT_FALSE(UniformAt(5, Level::k512G));
  Set(700, 1, kShared);
  EXPECT_FALSE(UniformAt(600, Level::k2M));
  EXPECT_FALSE(UniformAt(0, Level::k1G));
  EXPECT_TRUE(UniformAt(0, Level::k2M));
  EXPECT_TRUE(UniformAt(700, Level::k4K));
  Set(3 * k1GFrames + 700, 1, kShared);
  EXPECT_FALSE(UniformAt(3 * k1GFrames + 600, Level::k2M));
  EXPECT_FALSE(UniformAt(3 * k1GFrames, Level::k1G));
  EXPECT_TRUE(UniformAt(3 * k1GFrames, Level::k2M));
  EXPECT_TRUE(UniformAt(2 * k1GFrames, Level::k1G));
  EXPECT_TRUE(UniformAt(k512GFrames, Level::k512G));
}

TEST_F(AttributeMapTest, D11_ADenialIsOfItsFramesAlone) {
  Set(0, k1GFrames, kPrivate);
  Set(1000, 10, kReadOnly);
  Set(1005, 1, kNoFetch);
  Set(1009, 1, kShared);
  EXPECT_EQ(RunsOf(990, 30), (Runs{{{Gfn(990), 10}, kPrivate},
                                   {{Gfn(1000), 5}, kReadOnly},
                                   {{Gfn(1005), 1}, kNoFetch},
                                   {{Gfn(1006), 3}, kReadOnly},
                                   {{Gfn(1009), 1}, kShared},
                                   {{Gfn(1010), 10}, kPrivate}}));
}

TEST_F(AttributeMapTest, D11_NoHugePageOverPermissionsThatDiffer) {
  Set(0, k1GFrames, kReadOnly);
  EXPECT_TRUE(UniformAt(0, Level::k1G));
  Set(k2MFrames, 1, kPrivate);
  EXPECT_FALSE(UniformAt(k2MFrames, Level::k2M));
  EXPECT_TRUE(UniformAt(0, Level::k2M));
  EXPECT_FALSE(UniformAt(0, Level::k1G));
  Set(k2MFrames, 1, kReadOnly);
  EXPECT_TRUE(UniformAt(0, Level::k1G));
}

TEST_F(AttributeMapTest, D11_ALeafIsWideOnlyWhileSomethingInItIsDenied) {
  Set(0, k2MFrames, kPrivate);
  for (uint64_t i = 0; i < k2MFrames; i += 3) Set(i, 1, kShared);
  const size_t narrow = map_.bytes();
  EXPECT_EQ(narrow, sizeof(AttributeNarrowLeaf));
  const GfnRange range{Gfn(100), 7};
  ASSERT_TRUE(map_.Prepare(turn_, range, kReadOnly).ok());
  EXPECT_EQ(map_.bytes(), sizeof(AttributeWideLeaf));
  for (uint64_t i = 0; i < k2MFrames; ++i) ASSERT_EQ(Get(i), i % 3 == 0 ? kShared : kPrivate) << i;
  map_.Set(turn_, range, kReadOnly);
  map_.Collapse(turn_, range);
  EXPECT_EQ(map_.bytes(), sizeof(AttributeWideLeaf));
  EXPECT_EQ(Get(106), kReadOnly);
  Set(100, 7, kPrivate);
  EXPECT_EQ(map_.bytes(), narrow);
  EXPECT_EQ(Get(99), kShared);
  EXPECT_EQ(Get(105), kPrivate);
}

TEST_F(AttributeMapTest, EqualChildrenCollapseUpwards) {
  Set(0, 4 * k1GFrames, kPrivate);
  const size_t before = map_.bytes();
  for (uint64_t i = 0; i < 1024; ++i) Set(4096 + i, 1, kShared);
  EXPECT_GT(map_.bytes(), before);
  EXPECT_TRUE(UniformAt(4096, Level::k2M));
  Set(4096, 1024, kPrivate);
  EXPECT_EQ(map_.bytes(), before);
  Set(0, 4 * k1GFrames, kShared);
  EXPECT_EQ(map_.bytes(), 0u);
}

TEST_F(AttributeMapTest, WordsOfTheTrunkCollapseToo) {
  uint64_t first = 0;
  for (const int bits : kAttributeSpanBits) {
    const uint64_t end = uint64_t{1} << bits;
    if (end > kLimit.value) break;
    const uint64_t middle = first + (end - first) / 2;
    Set(first, middle - first, kPrivate);
    EXPECT_GT(map_.bytes(), 0u) << end;
    Set(middle, end - middle, kPrivate);
    EXPECT_EQ(map_.bytes(), 0u) << end;
    first = end;
  }
  EXPECT_EQ(RunsOf(0, kLimit.value), (Runs{{{Gfn(0), first}, kPrivate}}));
}

TEST_F(AttributeMapTest, PrepareChangesNoAnswerAndCollapseTakesItBack) {
  Set(0, k1GFrames, kPrivate);
  const size_t before = map_.bytes();
  const GfnRange range{Gfn(700), 5000};
  ASSERT_TRUE(map_.Prepare(turn_, range, kNoFetch).ok());
  EXPECT_GT(map_.bytes(), before);
  EXPECT_EQ(RunsOf(0, k1GFrames).size(), 1u);
  map_.Collapse(turn_, range);
  EXPECT_EQ(map_.bytes(), before);
}

TEST_F(AttributeMapTest, SizeOfARangeCostsNoMemory) {
  Set(k1GFrames + 1, 1, kPrivate);
  const size_t one_frame = map_.bytes();
  Set(k1GFrames + 1, 1, kShared);
  Set(k1GFrames + 1, k512GFrames - 2 * k1GFrames, kPrivate);
  // Two paths of splits, however many frames lie between.
  EXPECT_LE(map_.bytes(), 3 * one_frame);
}

TEST_F(AttributeMapTest, ScatteredFramesCostAtMost64BytesForEachUniformNode) {
  Set(0, 2 * k1GFrames, kPrivate);
  size_t nodes = 0;
  // One frame in each other 2M: 512 uniform frames, and the 2M between.
  for (uint64_t i = 0; i < 2 * k1GFrames; i += 2 * k2MFrames) {
    Set(i + 5, 1, kShared);
    nodes += 3 + 1;  // the runs of the split 2M; the uniform one
  }
  EXPECT_LE(map_.bytes(), 64 * nodes);
}

TEST_F(AttributeMapTest, ASetDoesNotTakeAwayWhatAnotherRangeOfTheBatchNeeds) {
  // Both lie in one leaf; the first makes all of it equal, so that it could be collapsed.
  Set(0, 4 * k1GFrames, kPrivate);
  Set(1000, 5, kShared);
  const GfnRange back{Gfn(1000), 5}, beside{Gfn(1010), 5};
  ASSERT_TRUE(map_.Prepare(turn_, back, kPrivate).ok());
  ASSERT_TRUE(map_.Prepare(turn_, beside, kReadOnly).ok());
  {
    const FailingNew none_left(0);
    map_.Set(turn_, back, kPrivate);
    EXPECT_EQ(RunsOf(0, k1GFrames).size(), 1u);
    map_.Set(turn_, beside, kReadOnly);
  }
  map_.Collapse(turn_, back);
  map_.Collapse(turn_, beside);
  EXPECT_EQ(RunsOf(0, k1GFrames).size(), 3u);
  EXPECT_EQ(Get(1014), kReadOnly);
}

TEST_F(AttributeMapTest, EveryAllocationOfAPrepareMayFail) {
  Set(0, 8 * k1GFrames, kPrivate);
  Set(2 * k1GFrames + 17, 1, kShared);  // a narrow leaf, to be made wide
  const size_t before = map_.bytes();
  const std::pair<GfnRange, MemoryAttributes> batch[] = {
      {{Gfn(100), k1GFrames}, kShared},
      {{Gfn(2 * k1GFrames + 3), 5}, kReadOnly},
      {{Gfn(3 * k1GFrames), 2 * k1GFrames + 99}, kNoFetch},
  };
  int failures = 0;
  for (bool done = false; !done; ++failures) {
    ASSERT_LT(failures, 100);
    absl::Status status;
    {
      const FailingNew after(failures);
      for (const auto& [range, attributes] : batch) {
        status = map_.Prepare(turn_, range, attributes);
        if (!status.ok()) break;
      }
    }
    done = status.ok();
    if (done) break;
    ASSERT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    for (const auto& [range, attributes] : batch) map_.Collapse(turn_, range);
    ASSERT_EQ(map_.bytes(), before) << failures;
    ASSERT_EQ(RunsOf(0, 8 * k1GFrames).size(), 3u) << failures;
  }
  EXPECT_GT(failures, 5);
  {
    const FailingNew none_left(0);
    for (const auto& [range, attributes] : batch) map_.Set(turn_, range, attributes);
  }
  for (const auto& [range, attributes] : batch) {
    map_.Collapse(turn_, range);
    EXPECT_EQ(RunsOf(range.first.value, range.count), (Runs{{range, attributes}}));
  }
}

TEST_F(AttributeMapTest, CollapseWithoutMemoryLeavesAWideLeafAndSaysTheSame) {
  Set(0, k2MFrames, kPrivate);
  Set(9, 1, kShared);
  Set(20, 1, kReadOnly);
  const FailingNew none_left(0);
  Set(20, 1, kPrivate);
  EXPECT_EQ(map_.bytes(), sizeof(AttributeWideLeaf));
  EXPECT_EQ(Get(9), kShared);
  EXPECT_EQ(Get(20), kPrivate);
}

TEST_F(AttributeMapTest, NothingIsFreedUnderAReader) {
  std::atomic<bool> inside{false};
  std::atomic<bool> freed{false};
  std::thread reader([&] {
    const EpochGuard guard;
    inside = true;
    for (int i = 0; i < 20'000; ++i) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_FALSE(freed) << "it may stand in what is freed";
  });
  while (!inside) std::this_thread::yield();
  for (size_t before = 0, now = 0; now >= before;) {
    before = now;
    Set(k1GFrames + 7, 1, kReadOnly);
    Set(k1GFrames + 7, 1, kShared);
    now = map_.retired_bytes(turn_);
  }
  freed = true;
  reader.join();
}

TEST_F(AttributeMapTest, WhatWaitsToBeFreedIsBounded) {
  size_t most = 0;
  for (int i = 0; i < 5000; ++i) {
    Set(k1GFrames + 7, 1, i % 2 == 0 ? kReadOnly : kShared);
    most = std::max(most, map_.retired_bytes(turn_));
    ASSERT_LE(most, AttributeMap::kRetiredBytes);
  }
  EXPECT_GT(most, AttributeMap::kRetiredBytes / 2);
  EXPECT_EQ(map_.bytes(), 0u);
}

}  // namespace
}  // namespace twinroot::mmu
