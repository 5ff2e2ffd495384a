#include "mmu/vm/invalidation_seq.h"

#include <gtest/gtest.h>

namespace twinroot::mmu {
namespace {

TEST(InvalidationSeqTest, HeldOffIsWidenedToLargePagesOrderedAndMerged) {
  const auto held = InvalidationSeq::HeldOff({{Gfn(5000), 1}, {Gfn(3), 1}, {Gfn(511), 2}});
  ASSERT_EQ(held.size(), 2u);
  EXPECT_EQ(held[0], (GfnRange{Gfn(0), 1024}));
  EXPECT_EQ(held[1], (GfnRange{Gfn(4608), 512}));
}

TEST(InvalidationSeqTest, FaultsInTheRangeRetryWhileItIsUnderWayAndOthersDoNot) {
  MmuLock mmu_lock;
  const MmuLock::Exclusive lock(mmu_lock);
  InvalidationSeq seq;
  const uint64_t in = seq.Snapshot(Gfn(600));
  const uint64_t out = seq.Snapshot(Gfn(1024));
  seq.Begin(lock, InvalidationSeq::HeldOff({{Gfn(700), 1}}));
  EXPECT_TRUE(seq.MustRetry(lock, Gfn(600), in));
  EXPECT_FALSE(seq.MustRetry(lock, Gfn(1024), out));
  EXPECT_FALSE(seq.MustRetry(lock, Gfn(511), out));
  seq.End(lock);
  EXPECT_FALSE(seq.UnderWay(lock, {Gfn(0), 4096}));
}

TEST(InvalidationSeqTest, ASnapshotFromBeforeTheEndIsOutOfDate) {
  MmuLock mmu_lock;
  const MmuLock::Exclusive lock(mmu_lock);
  InvalidationSeq seq;
  const uint64_t before = seq.Snapshot(Gfn(700));
  seq.Begin(lock, InvalidationSeq::HeldOff({{Gfn(700), 1}}));
  const uint64_t during = seq.Snapshot(Gfn(700));
  seq.End(lock);
  EXPECT_TRUE(seq.MustRetry(lock, Gfn(700), before));
  EXPECT_TRUE(seq.MustRetry(lock, Gfn(700), during));
  EXPECT_FALSE(seq.MustRetry(lock, Gfn(700), seq.Snapshot(Gfn(700))));
}

TEST(InvalidationSeqTest, AnotherGibibyteDoesNotNotice) {
  MmuLock mmu_lock;
  const MmuLock::Exclusive lock(mmu_lock);
  InvalidationSeq seq;
  const uint64_t gib = FramesPerEntry(Level::k1G);
  const uint64_t elsewhere = seq.Snapshot(Gfn(gib));
  seq.Begin(lock, InvalidationSeq::HeldOff({{Gfn(gib - 1), 1}}));
  seq.End(lock);
  EXPECT_FALSE(seq.MustRetry(lock, Gfn(gib), elsewhere));
}

TEST(InvalidationSeqTest, AHugeRangeReachesEveryShard) {
  MmuLock mmu_lock;
  const MmuLock::Exclusive lock(mmu_lock);
  InvalidationSeq seq;
  const uint64_t gib = FramesPerEntry(Level::k1G);
  seq.Begin(lock, {{Gfn(0), gib * 4096}});
  seq.End(lock);
  for (uint64_t i = 0; i < 4096; ++i) EXPECT_EQ(seq.Snapshot(Gfn(i * gib)), 1u);
}

}  // namespace
}  // namespace twinroot::mmu
