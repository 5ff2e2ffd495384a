// Map and Zap on bare tables: no VM, no pages.
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "mmu/engine/audit.h"
#include "mmu/engine/make_entry.h"
#include "mmu/engine/map.h"
#include "mmu/engine/prune.h"
#include "mmu/engine/zap.h"
#include "mmu/hw/mmio_entry.h"
#include "mmu/tables/descent.h"
#include "tests/mmu/tables/tables_fixture.h"

namespace twinroot::mmu {
namespace {

using Leaf = std::pair<uint64_t, Level>;

class MapZapTest : public testing::Test {
 protected:
  MapOutcome MapOnce(uint64_t gfn, Level level, PreloadedTables& preload, bool valid = true) {
    const EpochGuard guard;
    return Map(guard, t_.pool, t_.change, t_.root,
               {.gfn = Gfn(gfn),
                .pfn = Pfn((1 << 20) + gfn),
                .level = level,
                .access = Access::Read(),
                .leaf = leaf_},
               preload, [valid](GfnRange) { return valid; });
  }
  MapOutcome MapNow(uint64_t gfn, Level level, bool valid = true) {
    PreloadedTables preload(t_.pool);
    EXPECT_TRUE(t_.pool.Preload(3, preload).ok());
    return MapOnce(gfn, level, preload, valid);
  }
  // Says what every leaf was that went.
  std::vector<Leaf> ZapNow(GfnRange range) {
    std::vector<Leaf> gone;
    FlushBatch batch =
        t_.Batch([&gone](Gfn gfn, Level level, EptEntry) { gone.emplace_back(gfn.value, level); });
    const Turn turn(t_.turn_mutex);
    Zap(turn, t_.pool, t_.change, t_.root, range, batch);
    EXPECT_TRUE(batch.Finish(turn).ok());
    return gone;
  }
  // How many tables went.
  uint64_t PruneNow(GfnRange range) {
    FlushBatch batch = t_.Batch();
    const Turn turn(t_.turn_mutex);
    const uint64_t pruned = Prune(turn, t_.pool, t_.change, t_.root, range, batch);
    EXPECT_TRUE(batch.Finish(turn).ok());
    return pruned;
  }
  // The gfn and level of every leaf, by the auditor, which checks everything on its way.
  std::vector<Leaf> Leaves() {
    std::vector<Leaf> leaves;
    AuditTotals totals;
    const Turn turn(t_.turn_mutex);
    const absl::Status status = AuditRoot(
        turn, t_.pool, {t_.root}, {}, 52,
        [&](const Root&, Gfn gfn, Level level, EptEntry) {
          leaves.emplace_back(gfn.value, level);
          return absl::OkStatus();
        },
        totals);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(totals.tables.size(), t_.tables());
    for (const Level level : {Level::k4K, Level::k2M, Level::k1G}) {
      EXPECT_EQ(totals.leaves[0][static_cast<int>(level) - 1], t_.leaves(level));
    }
    return leaves;
  }

  LeafRequest leaf_;
  TablesFixture t_{32};
};

TEST_F(MapZapTest, SaysHowManyTablesItNeedsAndChangesNothing) {
  PreloadedTables none(t_.pool);
  const MapOutcome small = MapOnce(5, Level::k4K, none);
  ASSERT_TRUE(std::holds_alternative<NeedTables>(small));
  EXPECT_EQ(std::get<NeedTables>(small).count, 3u);
  const MapOutcome large = MapOnce(5, Level::k2M, none);
  EXPECT_EQ(std::get<NeedTables>(large).count, 2u);
  const MapOutcome huge = MapOnce(5, Level::k1G, none);
  EXPECT_EQ(std::get<NeedTables>(huge).count, 1u);
  EXPECT_EQ(t_.tables(), 1u);
  EXPECT_EQ(Leaves(), std::vector<Leaf>{});
}

TEST_F(MapZapTest, TakesOnlyTheTablesThatAreMissing) {
  PreloadedTables preload(t_.pool);
  ASSERT_TRUE(t_.pool.Preload(4, preload).ok());
  ASSERT_TRUE(std::holds_alternative<Mapped>(MapOnce(5, Level::k4K, preload)));
  EXPECT_EQ(preload.size(), 1u);
  ASSERT_TRUE(std::holds_alternative<Mapped>(MapOnce(6, Level::k4K, preload)));
  EXPECT_EQ(preload.size(), 1u);
  EXPECT_EQ(Leaves(), (std::vector<Leaf>{{5, Level::k4K}, {6, Level::k4K}}));
}

TEST_F(MapZapTest, ALargeLeafServesEveryFrameUnderIt) {
  ASSERT_TRUE(std::holds_alternative<Mapped>(MapNow(700, Level::k2M)));
  EXPECT_EQ(Leaves(), (std::vector<Leaf>{{512, Level::k2M}}));
  for (const uint64_t gfn : {512, 700, 1023}) {
    EXPECT_TRUE(std::holds_alternative<AlreadyMapped>(MapNow(gfn, Level::k4K)));
  }
}

TEST_F(MapZapTest, ALargeLeafGivesWayToATableThatStands) {
  ASSERT_TRUE(std::holds_alternative<Mapped>(MapNow(5, Level::k4K)));
  const MapOutcome outcome = MapNow(6, Level::k2M);
  ASSERT_TRUE(std::holds_alternative<Mapped>(outcome));
  EXPECT_EQ(std::get<Mapped>(outcome).level, Level::k4K);
}

TEST_F(MapZapTest, ZapTakesWholeLeavesAndEmptyTables) {
  for (const uint64_t gfn : {4, 5, 6}) MapNow(gfn, Level::k4K);
  MapNow(512, Level::k2M);
  MapNow(1024, Level::k2M);
  ZapNow(Frames(5, 600));
  EXPECT_EQ(Leaves(), (std::vector<Leaf>{{4, Level::k4K}, {1024, Level::k2M}}));
  ZapNow(Frames(0, 1));
  EXPECT_EQ(Leaves().size(), 2u);
  ZapNow(Frames(0, 2048));
  EXPECT_EQ(t_.tables(), 1u);
  EXPECT_EQ(t_.pool.stats().used, 1u);
}

TEST_F(MapZapTest, ZapOfFarRangesVisitsOnlyWhatIsThere) {
  const uint64_t far = uint64_t{300} << 27;
  MapNow(far + 7, Level::k4K);
  MapNow(3, Level::k4K);
  ZapNow(Frames(4, far));
  EXPECT_EQ(Leaves(), (std::vector<Leaf>{{3, Level::k4K}, {far + 7, Level::k4K}}));
  ZapNow(Frames(4, far + 100));
  EXPECT_EQ(Leaves(), (std::vector<Leaf>{{3, Level::k4K}}));
}

TEST_F(MapZapTest, PruneTakesTheEmptyTablesThatAMapLeftWhichCameTooLate) {
  MapNow(5, Level::k4K);
  ASSERT_TRUE(std::holds_alternative<Raced>(MapNow(600, Level::k4K, /*valid=*/false)));
  EXPECT_EQ(t_.tables(), 5u);
  EXPECT_EQ(Leaves(), (std::vector<Leaf>{{5, Level::k4K}}));
  EXPECT_EQ(PruneNow(Frames(600, 1)), 1u);
  EXPECT_EQ(PruneNow(Frames(0, 1024)), 0u);
  EXPECT_EQ(t_.tables(), 4u);
  EXPECT_EQ(Leaves(), (std::vector<Leaf>{{5, Level::k4K}}));
}

TEST_F(MapZapTest, ALeafThatIsNoLongerValidIsNeverPublished) {
  for (const Level level : {Level::k4K, Level::k2M, Level::k1G}) {
    EXPECT_TRUE(std::holds_alternative<Raced>(MapNow(5 << 18, level, /*valid=*/false)));
    EXPECT_EQ(Leaves(), std::vector<Leaf>{});
    PruneNow(Frames(5 << 18, 1));
  }
  EXPECT_EQ(t_.tables(), 1u);
}

TEST_F(MapZapTest, A1GLeafServesEveryFrameUnderItAndGoesWhole) {
  ASSERT_TRUE(std::holds_alternative<Mapped>(MapNow((2 << 18) + 700, Level::k1G)));
  EXPECT_EQ(Leaves(), (std::vector<Leaf>{{2 << 18, Level::k1G}}));
  EXPECT_EQ(t_.tables(), 2u);
  EXPECT_TRUE(std::holds_alternative<AlreadyMapped>(MapNow((3 << 18) - 1, Level::k4K)));
  EXPECT_EQ(ZapNow(Frames((2 << 18) + 5, 1)), (std::vector<Leaf>{{2 << 18, Level::k1G}}));
  EXPECT_EQ(t_.log.Take(), (std::vector<std::string>{"flush private 0x80000+262144"}));
  EXPECT_EQ(t_.tables(), 2u);
  // With the table goes all that it covered.
  EXPECT_EQ(PruneNow(Frames(2 << 18, 1)), 1u);
  EXPECT_EQ(t_.log.Take(), (std::vector<std::string>{"flush private 0x0+134217728"}));
  EXPECT_EQ(t_.tables(), 1u);
}

TEST_F(MapZapTest, AZapLooksForEmptyTablesWhereManyLeavesWent) {
  for (uint64_t gfn = 0; gfn < 64; ++gfn) MapNow(gfn, Level::k4K);
  ZapNow(Frames(0, 63));
  EXPECT_EQ(t_.tables(), 4u);
  ZapNow(Frames(63, 1));
  EXPECT_EQ(t_.tables(), 4u) << "one leaf is not worth a look";
  MapNow(600, Level::k4K);
  for (uint64_t gfn = 0; gfn < 64; ++gfn) MapNow(gfn, Level::k4K);
  ZapNow(Frames(0, 64));
  EXPECT_EQ(t_.tables(), 4u) << "that of gfn 600 and those above it stay";
  ZapNow(Frames(512, 512));
  EXPECT_EQ(t_.tables(), 1u) << "one leaf, and all of its table's range";
}

TEST_F(MapZapTest, MarksGoToo) {
  MapNow(5, Level::k4K);
  // By either way: few pages, and many.
  for (const uint64_t pages : {1, 64}) {
    EntrySlot* slot = nullptr;
    {
      const EpochGuard guard;
      slot = Descend(guard, t_.pool, t_.root, Gfn(6)).slot;
      ASSERT_EQ(t_.change.Freeze(guard, *slot, kEmptyEntry), ChangeResult::kDone);
      t_.change.PublishMark(*slot, MmioEntry::Make(MmioEntryForm::kMisconfigured, 1));
    }
    ZapNow(Frames(6, pages));
    EXPECT_EQ(slot->Load(), kEmptyEntry) << pages;
  }
}

TEST_F(MapZapTest, PruneTakesTablesWithoutLeavesAndNoOther) {
  MapNow(5, Level::k4K);
  MapNow(512, Level::k2M);
  MapNow((1 << 18) + 700, Level::k4K);
  ZapNow(Frames(5, 1));
  EXPECT_EQ(t_.tables(), 6u);
  EXPECT_EQ(PruneNow(Frames(0, 512)), 1u);
  EXPECT_EQ(Leaves(), (std::vector<Leaf>{{512, Level::k2M}, {(1 << 18) + 700, Level::k4K}}));
  ZapNow(Frames((1 << 18) + 700, 1));
  // The leaf's table and the one above it, which held nothing else.
  EXPECT_EQ(PruneNow(Frames(1 << 18, 1 << 18)), 2u);
  EXPECT_EQ(PruneNow(Frames(0, uint64_t{1} << 35)), 0u);
  EXPECT_EQ(Leaves(), (std::vector<Leaf>{{512, Level::k2M}}));
  EXPECT_EQ(t_.pool.stats().used, t_.tables());
}

// From a few large pages on whole tables are detached: the result is the same.
TEST_F(MapZapTest, AZapOfWholeTablesHearsOfEveryLeafAndFreesEveryTable) {
  for (uint64_t gfn = 0; gfn < 5; ++gfn) MapNow((1 << 18) + gfn * 512, Level::k2M);
  for (uint64_t gfn = 4000; gfn < 4010; ++gfn) MapNow((1 << 18) + gfn, Level::k4K);
  MapNow((1 << 18) - 1, Level::k4K);
  MapNow(2 << 18, Level::k4K);
  const size_t before = Leaves().size();
  ASSERT_EQ(before, 17u);
  const auto gone = ZapNow(Frames(1 << 18, 1 << 18));
  EXPECT_EQ(gone.size(), 15u);
  EXPECT_EQ(Leaves(), (std::vector<Leaf>{{(1 << 18) - 1, Level::k4K}, {2 << 18, Level::k4K}}));
  EXPECT_EQ(t_.tables(), 6u);
  EXPECT_EQ(t_.pool.stats().used, 6u);
  EXPECT_EQ(t_.log.Take(), (std::vector<std::string>{"flush private 0x40000+262144"}));
}

TEST_F(MapZapTest, AFaultThatNeedsARightThatTheLeafLacksFindsItInTheWay) {
  leaf_.allowed = Access::Fetch();
  PreloadedTables preload(t_.pool);
  ASSERT_TRUE(t_.pool.Preload(3, preload).ok());
  {
    const EpochGuard guard;
    const MapRequest fetch{.gfn = Gfn(5),
                           .pfn = Pfn(5),
                           .level = Level::k4K,
                           .access = Access::Fetch(),
                           .leaf = leaf_};
    ASSERT_TRUE(std::holds_alternative<Mapped>(
        Map(guard, t_.pool, t_.change, t_.root, fetch, preload, [](GfnRange) { return true; })));
  }
  const MapOutcome outcome = MapNow(5, Level::k4K);  // wants to read
  ASSERT_TRUE(std::holds_alternative<LeafInTheWay>(outcome));
  EXPECT_EQ(std::get<LeafInTheWay>(outcome).leaf.access(), Access::Fetch());
  EXPECT_EQ(std::get<LeafInTheWay>(outcome).level, Level::k4K);
}

TEST_F(MapZapTest, E1_WithAnExternalTableTheSlotIsHandedOverFrozen) {
  FakeExternalTables external(MemoryKind::kPrivate, t_.log);
  t_.root.external = &external;
  const MapOutcome outcome = MapNow(700, Level::k2M);
  ASSERT_TRUE(std::holds_alternative<FrozenSlot>(outcome));
  const FrozenSlot frozen = std::get<FrozenSlot>(outcome);
  EXPECT_EQ(frozen.gfn, Gfn(512));
  EXPECT_EQ(frozen.level, Level::k2M);
  EXPECT_EQ(frozen.before, kEmptyEntry);
  EXPECT_EQ(frozen.slot->Load(), kFrozenEntry);
  EXPECT_TRUE(std::holds_alternative<Raced>(MapNow(701, Level::k2M)));
  EXPECT_EQ(t_.log.Take(), std::vector<std::string>{}) << "telling it is the caller's business";
  t_.change.Publish(t_.root, *frozen.slot, frozen.level, frozen.before, frozen.leaf);
  // A leaf that stands is frozen again, to tell its owner once more.
  const MapOutcome again = MapNow(701, Level::k2M);
  ASSERT_TRUE(std::holds_alternative<FrozenSlot>(again));
  EXPECT_EQ(std::get<FrozenSlot>(again).before, frozen.leaf);
  t_.change.Restore(*frozen.slot, frozen.leaf);
  EXPECT_EQ(Leaves(), (std::vector<Leaf>{{512, Level::k2M}}));
}

TEST_F(MapZapTest, ALinkOutsideThePoolIsReportedNotFollowed) {
  RawWord(t_.root.table->slots[0]) = 0x407 | kMmuPresent;
  EXPECT_TRUE(std::holds_alternative<BrokenTables>(MapNow(5, Level::k4K)));
}

}  // namespace
}  // namespace twinroot::mmu
