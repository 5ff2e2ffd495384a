// Taking rights out of leaves, on bare tables.
#include "mmu/engine/restrict.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "mmu/engine/make_entry.h"
#include "tests/mmu/tables/tables_fixture.h"

namespace twinroot::mmu {
namespace {

constexpr Pfn kPfn{uint64_t{1} << 20};
constexpr Access kReadOnly = Access::Read();

class RestrictTest : public testing::Test {
 protected:
  RestrictTest() {
    const Table& l3 = t_.LinkNew(*t_.root.table, 0, Gfn(0));
    large_ = t_.LinkNew(l3, 0, Gfn(0)).slots;
    small_ = t_.LinkNew(*t_.pool.At(t_.pool.AddressOf(large_)), 0, Gfn(0)).slots;
  }
  void Run(GfnRange range, Access keep) {
    const Turn turn(t_.turn_mutex);
    FlushBatch batch = t_.Batch();
    Restrict(turn, t_.pool, t_.change, t_.root, range, keep, batch);
    EXPECT_TRUE(batch.Finish(turn).ok());
  }
  EptEntry PutSmall(uint64_t i, const LeafRequest& request = {}) {
    const EptEntry leaf = MakeLeaf(kPfn + i, Level::k4K, request);
    t_.SetLeaf(small_[i], Level::k4K, leaf);
    return leaf;
  }

  TablesFixture t_{64};
  EntrySlot* large_ = nullptr;
  EntrySlot* small_ = nullptr;
};

TEST_F(RestrictTest, D11_RightsGoInPlaceWithOneFlush) {
  PutSmall(5);
  PutSmall(9);
  Run(Frames(0, 512), kReadOnly);
  for (const uint64_t i : {5, 9}) {
    EXPECT_EQ(small_[i].Load().access(), kReadOnly);
    EXPECT_EQ(small_[i].Load().address(), HpaOf(kPfn + i));
  }
  EXPECT_EQ(t_.log.Take(), std::vector<std::string>{"flush private 0x5+5"});
  EXPECT_EQ(t_.leaves(Level::k4K), 2u);
}

TEST_F(RestrictTest, ALeafThatHasNoRightTooManyStaysAndNothingIsFlushed) {
  const EptEntry leaf = PutSmall(5, {.allowed = kReadOnly});
  Run(Frames(0, 512), Access::Read() | Access::Write());
  EXPECT_EQ(small_[5].Load(), leaf);
  EXPECT_TRUE(t_.log.Take().empty());
}

TEST_F(RestrictTest, AWithheldRightGoesForGoodAndNobodyIsFlushedForIt) {
  PutSmall(5, {.withhold_write = true});
  Run(Frames(0, 512), Access::Read() | Access::Fetch());
  EXPECT_FALSE(MayWrite(small_[5].Load()));
  EXPECT_TRUE(t_.log.Take().empty());
}

TEST_F(RestrictTest, ALeafThatNoRightIsLeftOfGoes) {
  PutSmall(5, {.allowed = kReadOnly});
  PutSmall(6);
  Run(Frames(0, 512), Access::Fetch());
  EXPECT_EQ(small_[5].Load(), kEmptyEntry);
  EXPECT_EQ(small_[6].Load().access(), Access::Fetch());
  EXPECT_EQ(t_.leaves(Level::k4K), 1u);
}

TEST_F(RestrictTest, ALeafThatReachesOverTheEndGoes) {
  t_.SetLeaf(large_[1], Level::k2M, MakeLeaf(kPfn, Level::k2M, {}));
  t_.SetLeaf(large_[2], Level::k2M, MakeLeaf(kPfn + 512, Level::k2M, {}));
  Run(Frames(512, 700), kReadOnly);
  EXPECT_EQ(large_[1].Load().access(), kReadOnly);
  EXPECT_EQ(large_[2].Load(), kEmptyEntry);
  EXPECT_EQ(t_.leaves(Level::k2M), 1u);
}

}  // namespace
}  // namespace twinroot::mmu
