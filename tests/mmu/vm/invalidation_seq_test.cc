#include "mmu/vm/invalidation_seq.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace twinroot::mmu {
namespace {

const uint64_t kGib = FramesPerEntry(Level::k1G);
constexpr GfnRange Leaf(uint64_t first, uint64_t count = 1) { return {Gfn(first), count}; }

class InvalidationSeqTest : public testing::Test {
 protected:
  bool StillValid(GfnRange leaf, uint64_t snapshot) {
    const EpochGuard guard;
    return seq_.StillValid(guard, leaf, snapshot);
  }
  Mutex mutex_;
  InvalidationSeq seq_;
};

TEST_F(InvalidationSeqTest, WhileAChangeIsUnderWayLeavesThatTouchItAreInvalidAndOthersAreNot) {
  const Turn turn(mutex_);
  const uint64_t before = seq_.Snapshot(Gfn(600));
  seq_.Begin(turn, {Leaf(100, 5), Leaf(700, 2), Leaf(900)});
  const uint64_t during = seq_.Snapshot(Gfn(600));
  for (const uint64_t snapshot : {before, during}) {
    for (const uint64_t gfn : {99, 105, 600, 699, 702, 899, 901, 1024}) {
      EXPECT_TRUE(StillValid(Leaf(gfn), snapshot)) << gfn;
    }
    for (const uint64_t gfn : {100, 104, 700, 701, 900}) {
      EXPECT_FALSE(StillValid(Leaf(gfn), snapshot)) << gfn;
    }
    EXPECT_FALSE(StillValid(Leaf(512, 512), snapshot)) << "a large leaf around it";
    EXPECT_FALSE(StillValid(Leaf(0, kGib), snapshot));
    EXPECT_TRUE(StillValid(Leaf(1024, 512), snapshot));
  }
  seq_.End(turn);
}

TEST_F(InvalidationSeqTest, ASnapshotFromBeforeTheEndIsOutOfDateInTheWholeGibibyte) {
  const Turn turn(mutex_);
  const uint64_t before = seq_.Snapshot(Gfn(5));
  seq_.Begin(turn, {Leaf(700)});
  const uint64_t during = seq_.Snapshot(Gfn(5));
  seq_.End(turn);
  EXPECT_FALSE(StillValid(Leaf(700), before));
  EXPECT_FALSE(StillValid(Leaf(700), during));
  EXPECT_FALSE(StillValid(Leaf(5), during));
  EXPECT_TRUE(StillValid(Leaf(700), seq_.Snapshot(Gfn(700))));
  EXPECT_EQ(seq_.invalidations(), 1u);
}

TEST_F(InvalidationSeqTest, AnotherGibibyteDoesNotNotice) {
  const Turn turn(mutex_);
  const uint64_t elsewhere = seq_.Snapshot(Gfn(kGib));
  seq_.Begin(turn, {Leaf(kGib - 1)});
  EXPECT_TRUE(StillValid(Leaf(kGib, kGib), elsewhere));
  seq_.End(turn);
  EXPECT_TRUE(StillValid(Leaf(kGib), elsewhere));
}

TEST_F(InvalidationSeqTest, AChangeBesideIsNotTakenForTheNextOne) {
  const Turn turn(mutex_);
  seq_.Begin(turn, {Leaf(10)});
  const uint64_t snapshot = seq_.Snapshot(Gfn(20));
  EXPECT_TRUE(StillValid(Leaf(20), snapshot));
  seq_.End(turn);
  seq_.Begin(turn, {Leaf(10)});
  EXPECT_FALSE(StillValid(Leaf(20), snapshot)) << "one change has ended in between";
  seq_.End(turn);
}

TEST_F(InvalidationSeqTest, AHugeRangeReachesEveryShard) {
  const Turn turn(mutex_);
  std::vector<uint64_t> before;
  for (uint64_t i = 0; i < 200; ++i) before.push_back(seq_.Snapshot(Gfn(i * kGib)));
  seq_.Begin(turn, {Leaf(0, kGib * 4096)});
  for (uint64_t i = 0; i < 200; ++i) EXPECT_FALSE(StillValid(Leaf(i * kGib), before[i]));
  seq_.End(turn);
  for (uint64_t i = 0; i < 200; ++i) EXPECT_FALSE(StillValid(Leaf(i * kGib), before[i]));
}

TEST_F(InvalidationSeqTest, SnapshotsOfAShardNeverRepeat) {
  const Turn turn(mutex_);
  uint64_t last = seq_.Snapshot(Gfn(0));
  for (int i = 0; i < 200; ++i) {
    seq_.Begin(turn, {Leaf(0)});
    seq_.End(turn);
    const uint64_t now = seq_.Snapshot(Gfn(0));
    ASSERT_GT(now, last);
    last = now;
  }
}

// The argument of the header, with a plain word in the slot's place: what a fault publishes after
// it was told "still valid" is seen by the change that begins.
TEST_F(InvalidationSeqTest, EitherTheFaultGivesUpOrTheChangeSeesWhatIsFrozen) {
  constexpr int kEmpty = 0, kFrozen = 1, kLeaf = 2;
  std::atomic<int> slot{kEmpty};
  std::atomic<bool> stop{false};
  std::atomic<int> published{0};
  std::thread fault([&] {
    while (!stop) {
      const uint64_t snapshot = seq_.Snapshot(Gfn(5));
      const EpochGuard guard;
      int empty = kEmpty;
      if (!slot.compare_exchange_strong(empty, kFrozen)) continue;
      const bool valid = seq_.StillValid(guard, Leaf(5), snapshot);
      slot.store(valid ? kLeaf : kEmpty, std::memory_order_release);
      published += valid;
    }
  });
  int seen = 0;
  for (int round = 0; round < 3000; ++round) {
    const Turn turn(mutex_);
    seq_.Begin(turn, {Leaf(5)});
    int now;
    while ((now = slot.load()) == kFrozen) std::this_thread::yield();
    if (now == kLeaf) {
      ++seen;
      slot.store(kEmpty);
    }
    // Nothing may be published any more until the end.
    for (int look = 0; look < 20; ++look) ASSERT_NE(slot.load(), kLeaf);
    seq_.End(turn);
  }
  stop = true;
  fault.join();
  RecordProperty("seen", seen);
  EXPECT_LE(seen, published.load());
}

}  // namespace
}  // namespace twinroot::mmu
