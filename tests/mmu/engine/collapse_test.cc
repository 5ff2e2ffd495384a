// Merging small leaves in place, on bare tables.
#include "mmu/engine/collapse.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "mmu/engine/make_entry.h"
#include "mmu/engine/split.h"
#include "tests/mmu/tables/tables_fixture.h"

namespace twinroot::mmu {
namespace {

constexpr Pfn kPfn{uint64_t{1} << 20};

class CollapseTest : public testing::Test {
 protected:
  CollapseTest() {
    const Table& l3 = t_.LinkNew(*t_.root.table, 0, Gfn(0));
    l2_ = &t_.LinkNew(l3, 0, Gfn(0));
    small_ = &t_.LinkNew(*l2_, 0, Gfn(0));
  }
  void Put(uint64_t i, EptEntry leaf) { t_.SetLeaf(small_->slots[i], Level::k4K, leaf); }
  static EptEntry Small(uint64_t i) { return MakeLeaf(kPfn + i, Level::k4K, {}); }
  static std::optional<EptEntry> Large(Gfn gfn, Level level) {
    return level == Level::k2M ? std::optional(MakeLeaf(kPfn + gfn.value, level, {}))
                               : std::nullopt;
  }
  uint64_t Run(GfnRange range, const LeafFor& leaf_for = Large) {
    const Turn turn(t_.turn_mutex);
    FlushBatch batch = t_.Batch();
    const uint64_t n = CollapseRange(turn, t_.pool, t_.change, t_.root, range, leaf_for, batch);
    EXPECT_TRUE(batch.Finish(turn).ok());
    return n;
  }

  TablesFixture t_{64};
  const Table* l2_ = nullptr;
  const Table* small_ = nullptr;
};

TEST_F(CollapseTest, F5_ATableBecomesALeafWithOneFlushAndItsPageComesBack) {
  for (uint64_t i = 0; i < 512; ++i) Put(i, Small(i));
  const size_t used = t_.pool.stats().used;
  EXPECT_EQ(Run(Frames(0, 1024)), 1u);
  EXPECT_EQ(l2_->slots[0].Load(), MakeLeaf(kPfn, Level::k2M, {}));
  EXPECT_EQ(t_.log.Take(), std::vector<std::string>{"flush private 0x0+512"});
  EXPECT_EQ(t_.leaves(Level::k4K), 0u);
  EXPECT_EQ(t_.leaves(Level::k2M), 1u);
  EXPECT_EQ(t_.pool.stats().used, used - 1);
}

TEST_F(CollapseTest, OnlyWhereSomethingIsMappedAndAllOfItIsInTheRange) {
  EXPECT_EQ(Run(Frames(0, 512)), 0u) << "an empty table is not a reason to map 2M";
  Put(5, Small(5));
  EXPECT_EQ(Run(Frames(0, 511)), 0u);
  EXPECT_EQ(Run(Frames(0, 512), [](Gfn, Level) { return std::nullopt; }), 0u);
  EXPECT_EQ(Run(Frames(0, 512)), 1u);
}

TEST_F(CollapseTest, F3_AccessedAndDirtyOfAnyPageAreTheLeafs) {
  Put(5, Small(5));
  Put(6, EptEntry(Small(6).raw() | EptEntry::kDirty));
  EXPECT_EQ(Run(Frames(0, 512)), 1u);
  EXPECT_TRUE(l2_->slots[0].Load().dirty());
  EXPECT_FALSE(l2_->slots[0].Load().accessed());
}

// A flusher that is a processor: it sets D through what it has walked before the flush.
class LateWriter : public TlbFlusher {
 public:
  explicit LateWriter(EntrySlot& slot) : slot_(slot) {}
  void FlushRange(MemoryKind, HwGfn, uint64_t) override { RawWord(slot_) |= EptEntry::kDirty; }
  void FlushAll() override {}

 private:
  EntrySlot& slot_;
};

TEST_F(CollapseTest, F3_DirtyThatIsSetUntilTheFlushIsNotForgotten) {
  Put(6, Small(6));
  LateWriter late(small_->slots[6]);
  const Turn turn(t_.turn_mutex);
  FlushBatch batch(t_.pool, t_.change, &late, t_.counts, t_.bugs);
  EXPECT_EQ(CollapseRange(turn, t_.pool, t_.change, t_.root, Frames(0, 512), Large, batch), 1u);
  EXPECT_FALSE(l2_->slots[0].Load().dirty());
  EXPECT_TRUE(batch.Finish(turn).ok());
  EXPECT_TRUE(l2_->slots[0].Load().dirty());
}

TEST_F(CollapseTest, F5_TheMemoryIsMappedAtEveryMoment) {
  for (uint64_t i = 0; i < 512; ++i) Put(i, Small(i));
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> holes{0};
  std::atomic<uint64_t> looks{0};
  std::thread walker([&] {
    while (!stop) {
      const EpochGuard guard;
      const EptEntry entry = l2_->slots[0].Load();
      const SlotState state = StateOf(entry, Level::k2M);
      if (state == SlotState::kLink) {
        const Table* child = t_.pool.At(entry.address());
        if (StateOf(child->slots[77].Load(), Level::k4K) != SlotState::kLeaf) ++holes;
      } else if (state != SlotState::kLeaf) {
        ++holes;
      }
      ++looks;
    }
  });
  for (int round = 0; round < 200 || looks < 1000; ++round) {
    EXPECT_EQ(Run(Frames(0, 512)), 1u);
    const Turn turn(t_.turn_mutex);
    SplitCounts counts;
    SplitRange(turn, t_.pool, t_.change, t_.root, Frames(0, 512), Level::k4K, counts,
               [](HwGfn, Level) {});
    EXPECT_EQ(counts.from_2m, 1u);
  }
  stop = true;
  walker.join();
  EXPECT_EQ(holes, 0u);
}

TEST_F(CollapseTest, AWholeGibibyteIsOneLeafThoughTablesStandBelow) {
  Put(5, Small(5));
  const auto huge = [](Gfn gfn, Level level) {
    return std::optional(MakeLeaf(kPfn + gfn.value, level, {}));
  };
  const uint64_t tables = t_.tables();
  EXPECT_EQ(Run(Frames(0, 1 << 18), huge), 1u);
  EXPECT_EQ(t_.leaves(Level::k1G), 1u);
  EXPECT_EQ(t_.leaves(Level::k4K), 0u);
  EXPECT_EQ(t_.tables(), tables - 2);
}

}  // namespace
}  // namespace twinroot::mmu
