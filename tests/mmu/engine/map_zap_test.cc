// Map and Zap on bare tables: no VM, no pages.
#include <gtest/gtest.h>

#include "mmu/engine/audit.h"
#include "mmu/engine/make_entry.h"
#include "mmu/engine/map.h"
#include "mmu/engine/zap.h"
#include "mmu/tables/cursor.h"
#include "tests/mmu/tables/tables_fixture.h"

namespace twinroot::mmu {
namespace {

static_assert(MakeLeaf(Pfn(5), Level::k4K, Access::All()).raw() == 0x5437);
static_assert(MakeLeaf(Pfn(512), Level::k2M, Access::Read()).raw() == 0x20'00B1);

class MapZapTest : public testing::Test {
 protected:
  MapOutcome MapOnce(uint64_t gfn, Level level, PreloadedTables& preload) {
    const MmuLock::Shared lock(t_.mmu_lock);
    return Map(lock, t_.pool, t_.change, t_.root,
               {.gfn = Gfn(gfn), .pfn = Pfn((1 << 20) + gfn), .level = level}, preload);
  }
  MapOutcome MapNow(uint64_t gfn, Level level) {
    PreloadedTables preload(t_.pool);
    EXPECT_TRUE(t_.pool.Preload(3, preload).ok());
    return MapOnce(gfn, level, preload);
  }
  void ZapNow(GfnRange range) {
    FlushBatch batch = t_.Batch();
    const MmuLock::Exclusive lock(t_.mmu_lock);
    Zap(lock, t_.pool, t_.change, t_.root, range, batch);
    EXPECT_TRUE(batch.Finish(lock).ok());
  }
  // The gfn and level of every leaf, by the auditor, which checks everything on its way.
  std::vector<std::pair<uint64_t, Level>> Leaves() {
    std::vector<std::pair<uint64_t, Level>> leaves;
    AuditTotals totals;
    const MmuLock::Exclusive lock(t_.mmu_lock);
    const absl::Status status = AuditRoot(
        lock, t_.pool, t_.root, {}, 52,
        [&](Gfn gfn, Level level, EptEntry) {
          leaves.emplace_back(gfn.value, level);
          return absl::OkStatus();
        },
        totals);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(totals.tables.size(), t_.counts.tables.load());
    return leaves;
  }

  TablesFixture t_{32};
};

using Leaf = std::pair<uint64_t, Level>;

TEST_F(MapZapTest, SaysHowManyTablesItNeedsAndChangesNothing) {
  PreloadedTables none(t_.pool);
  const MapOutcome small = MapOnce(5, Level::k4K, none);
  ASSERT_TRUE(std::holds_alternative<NeedTables>(small));
  EXPECT_EQ(std::get<NeedTables>(small).count, 3u);
  const MapOutcome large = MapOnce(5, Level::k2M, none);
  EXPECT_EQ(std::get<NeedTables>(large).count, 2u);
  EXPECT_EQ(t_.counts.tables, 1u);
  EXPECT_EQ(t_.root.table->present, 0u);
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
  EXPECT_EQ(t_.counts.tables, 1u);
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

TEST_F(MapZapTest, PruneTakesEmptyTablesAndLeavesLeaves) {
  MapNow(5, Level::k4K);
  // What a map that failed at its last step leaves.
  {
    PreloadedTables preload(t_.pool);
    ASSERT_TRUE(t_.pool.Preload(1, preload).ok());
    const MmuLock::Shared lock(t_.mmu_lock);
    Cursor at(lock, t_.pool, t_.root, Frames(600, 1));
    at.Descend(*at.Child(at.entry()));
    at.Descend(*at.Child(at.entry()));
    ASSERT_EQ(t_.change.Link(lock, at.table(), at.index(), preload.Take(), Gfn(600)),
              ChangeResult::kDone);
  }
  EXPECT_EQ(t_.counts.tables, 5u);
  FlushBatch batch = t_.Batch();
  const MmuLock::Exclusive lock(t_.mmu_lock);
  for (const uint64_t gfn : {5, 600}) {
    PruneEmptyTables(lock, t_.pool, t_.change, t_.root, Frames(gfn, 1), batch);
  }
  ASSERT_TRUE(batch.Finish(lock).ok());
  EXPECT_EQ(t_.counts.tables, 4u);
  EXPECT_EQ(t_.counts.leaves[0][0], 1u);
}

TEST_F(MapZapTest, ALinkOutsideThePoolIsReportedNotFollowed) {
  auto* word = reinterpret_cast<std::atomic<uint64_t>*>(&t_.root.table->slots[0]);
  *word = 0x407;
  EXPECT_TRUE(std::holds_alternative<BrokenTables>(MapNow(5, Level::k4K)));
}

}  // namespace
}  // namespace twinroot::mmu
