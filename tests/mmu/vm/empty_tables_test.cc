// Tables that a zap of few pages leaves with nothing in them: who finds them, and when.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/fakes/test_space.h"

namespace twinroot::mmu {
namespace {

constexpr auto kPrivate = MemoryKind::kPrivate;
constexpr auto kShared = MemoryKind::kShared;

// A page of a 2M region was mapped small, since its neighbour was shared, and both went.
void LeaveATable(TestSpace& t) {
  ASSERT_TRUE(t.Convert({Frames(6, 1)}, kShared).ok());
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  ASSERT_EQ(t.LevelOf(5, kPrivate), Level::k4K);
  ASSERT_TRUE(t.space->Zap(Frames(5, 1)).ok());
  ASSERT_TRUE(t.Convert({Frames(6, 1)}, kPrivate).ok());
}

TEST(EmptyTablesTest, D3_ALargeLeafTakesTheirPlace) {
  for (const bool ready : {false, true}) {
    TestSpace t({.max_level = Level::k2M});
    t.pages.ready = ready;
    LeaveATable(t);
    const uint64_t tables = t.space->stats().table_pages;
    t.log.Take();
    ASSERT_TRUE(t.Fixes(7, kPrivate));
    EXPECT_EQ(t.LevelOf(7, kPrivate), Level::k2M) << "ready " << ready;
    EXPECT_EQ(t.space->stats().table_pages, tables - 1);
    // A processor may still know the way to the old table.
    EXPECT_EQ(t.log.Take().back().rfind("flush private 0x0+", 0), 0u);
    EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
  }
}

TEST(EmptyTablesTest, D3_AGibibyteTakesThePlaceOfAllBelowIt) {
  TestSpaceOptions options;
  options.frames = uint64_t{2} << 18;
  TestSpace t(options);
  ASSERT_TRUE(t.Convert({Frames(6, 1), Frames(4096, 1)}, kShared).ok());
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  ASSERT_TRUE(t.Fixes(4097, kPrivate));
  for (const uint64_t gfn : {5, 4097}) ASSERT_TRUE(t.space->Zap(Frames(gfn, 1)).ok());
  ASSERT_TRUE(t.Convert({Frames(6, 1), Frames(4096, 1)}, kPrivate).ok());
  ASSERT_TRUE(t.Fixes(7, kPrivate));
  EXPECT_EQ(t.LevelOf(7, kPrivate), Level::k1G);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(EmptyTablesTest, AnyLeafInTheTableKeepsIt) {
  for (const uint64_t kept : {0, 300, 511}) {
    TestSpace t({.max_level = Level::k2M});
    ASSERT_TRUE(t.Convert({Frames(6, 1)}, kShared).ok());
    ASSERT_TRUE(t.Fixes(kept, kPrivate));
    // In place: a table with leaves is no empty one, and no attribute makes it large meanwhile.
    t.pages.max_level = Level::k4K;
    ASSERT_TRUE(t.Convert({Frames(6, 1)}, kPrivate).ok());
    t.pages.max_level = Level::k2M;
    ASSERT_TRUE(t.Fixes(7, kPrivate));
    EXPECT_EQ(t.LevelOf(7, kPrivate), Level::k4K) << kept;
    EXPECT_TRUE(t.IsMapped(kept, kPrivate));
  }
}

TEST(EmptyTablesTest, NoFaultWaitsForAChangeThatIsUnderWay) {
  TestSpace t({.max_level = Level::k2M});
  LeaveATable(t);
  int faults = 0;
  t.pages.on_content = [&](GfnRange) {
    // In the middle of a conversion elsewhere, which holds the turn.
    ASSERT_TRUE(t.Fixes(7, kPrivate));
    EXPECT_EQ(t.LevelOf(7, kPrivate), Level::k4K) << "a large page is not worth the wait";
    ++faults;
  };
  ASSERT_TRUE(t.Convert({Frames(1024, 1)}, kShared).ok());
  EXPECT_EQ(faults, 1);
}

TEST(EmptyTablesTest, F10_AFaultThatFindsNoTableTakesThem) {
  TestSpaceOptions options;
  options.pool_pages = 2 + 3 + 1;  // roots, the private path, one table more
  options.max_level = Level::k4K;
  options.frames = 8 * 512;
  TestSpace t(options);
  for (uint64_t region = 0; region < 8; ++region) {
    ASSERT_TRUE(t.Fixes(region * 512, kPrivate)) << region;
    ASSERT_TRUE(t.space->Zap(Frames(region * 512, 1)).ok());
  }
  ASSERT_TRUE(t.Fixes(0, kPrivate));
  ASSERT_TRUE(t.Fixes(512, kPrivate));
  // Nothing is empty now: refused, and what stands stays.
  EXPECT_TRUE(std::holds_alternative<Failed>(t.Touch(1024, kPrivate)));
  EXPECT_TRUE(t.IsMapped(0, kPrivate));
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(EmptyTablesTest, B9_ASplitTakesThemBeforeItGivesUp) {
  TestSpaceOptions options;
  options.pool_pages = 2 + 2 + 1;  // roots, the private path to 2M leaves, one table more
  options.max_level = Level::k4K;
  TestSpace t(options);
  ASSERT_TRUE(t.Fixes(512, kPrivate));
  ASSERT_TRUE(t.space->Zap(Frames(512, 1)).ok());
  t.pages.max_level = Level::k2M;
  ASSERT_TRUE(t.Fixes(5, kPrivate));
  ASSERT_EQ(t.LevelOf(5, kPrivate), Level::k2M);
  ASSERT_EQ(t.pool.stats().used, 5u);
  EXPECT_EQ(t.space->SplitPages(Frames(0, 512), Level::k4K)->kept, 0u);
  EXPECT_EQ(t.LevelOf(5, kPrivate), Level::k4K);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(EmptyTablesTest, AStaleMmioMarkIsNothing) {
  TestSpaceOptions options;
  options.add_slot = false;
  options.max_level = Level::k2M;
  options.shared_bit = std::nullopt;
  options.shared_backing = false;
  TestSpace t(options);
  // A small slot forces small marks beside it.
  Memslot small{.range = Frames(0, 1), .private_pfn = TestSpace::kPrivatePfn, .shared_pfn = {}};
  ASSERT_TRUE(t.space->AddMemslot(small).ok());
  ASSERT_TRUE(std::holds_alternative<Mmio>(t.Touch(5, kPrivate)));
  ASSERT_TRUE(t.Fixes(0, kPrivate));
  ASSERT_TRUE(t.space->RemoveMemslot(Gfn(0)).ok());
  ASSERT_TRUE(t.space->AddMemslot(t.Slot()).ok());
  ASSERT_TRUE(t.Fixes(7, kPrivate));
  EXPECT_EQ(t.LevelOf(7, kPrivate), Level::k2M);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

// One thread empties tables page by page, others want large pages there.
TEST(EmptyTablesTest, FaultsBesideZapsAlwaysEndWithAMapping) {
  TestSpace t({.max_level = Level::k2M});
  std::atomic<bool> stop{false};
  std::vector<std::thread> vcpus;
  for (uint64_t vcpu = 0; vcpu < 2; ++vcpu) {
    vcpus.emplace_back([&, vcpu] {
      for (uint64_t i = 0; !stop; ++i) t.Touch((i * 7 + vcpu * 512) % 1024, kPrivate);
    });
  }
  for (int round = 0; round < 2000; ++round) {
    const uint64_t at = round % 2 * 512;
    ASSERT_TRUE(t.Convert({Frames(at + 6, 1)}, kShared).ok());
    ASSERT_TRUE(t.space->Zap(Frames(at, 3)).ok());
    ASSERT_TRUE(t.Convert({Frames(at + 6, 1)}, kPrivate).ok());
    ASSERT_TRUE(t.space->Zap(Frames(at + 9, 1)).ok());
  }
  stop = true;
  for (std::thread& vcpu : vcpus) vcpu.join();
  ASSERT_TRUE(t.space->Audit().ok()) << t.space->Audit();
  ASSERT_TRUE(t.space->Zap(Frames(0, 1024)).ok());
  for (const uint64_t gfn : {5, 600}) {
    ASSERT_TRUE(t.Fixes(gfn, kPrivate));
    EXPECT_EQ(t.LevelOf(gfn, kPrivate), Level::k2M);
  }
  EXPECT_EQ(t.pool.stats().used, t.space->stats().table_pages);
}

}  // namespace
}  // namespace twinroot::mmu
