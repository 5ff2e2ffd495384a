#include "mmu/shadow/shadow_split.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mmu/shadow/shadow_audit.h"
#include "mmu/tables/bug_sink.h"
#include "mmu/tables/entry_change.h"
#include "mmu/tables/mutex.h"
#include "mmu/tables/table_pool.h"
#include "mmu/tables/vm_counts.h"
#include "tests/fakes/test_space.h"

namespace twinroot::mmu {
namespace {

// Shadow tables without a guest: pages and leaves are put there by hand.
struct Shadows : TlbFlusher, BugSink {
  explicit Shadows(size_t pages, size_t most_pages = 1 << 20)
      : memory(pages),
        pool(Hpa(uint64_t{1} << 32), memory.get(), pages),
        tables({.most_pages = most_pages}, {&pool, &change, this, this}) {}
  void FlushRange(MemoryKind, HwGfn, uint64_t) override { ++flushes; }
  void FlushAll() override { ++flushes; }
  void ReportBug(const std::string& what) override { bugs.push_back(what); }

  // A page that stands in for the guest's table at `gfn`, or a direct one.
  ShadowPage& NewPage(Gfn gfn, Level level, bool direct = false,
                      GuestRights rights = GuestRights::All()) {
    TableIdentity identity{gfn, {}};
    identity.role.level = level;
    identity.role.direct = direct;
    identity.role.access = RoleAccess(rights);
    identity.role.efer_lma = identity.role.efer_nx = identity.role.cr4_pae = !direct;
    PreloadedTables preload(pool);
    EXPECT_TRUE(pool.Preload(1, preload).ok());
    ShadowFlush flush = tables.NewFlush();
    ShadowPage& page =
        tables.Make(turn, identity, ShadowTables::Sharing::kShared, preload.Take(), flush);
    flush.Finish(turn);
    return page;
  }
  // As the guest's rights are, but for what `grant` says.
  void Leaf(ShadowPage& page, unsigned index, Gfn gfn, GuestRights rights,
            std::optional<ShadowGrant> grant = {}) {
    ShadowFlush flush = tables.NewFlush();
    const ShadowGrant full{
        .write = rights.write(), .user = rights.user(), .execute = rights.execute()};
    tables.SetLeaf(turn, page, index, {gfn, rights, HpaOf(Pfn(gfn.value)), grant.value_or(full)},
                   flush);
    flush.Finish(turn);
  }
  ShadowSplitResult Split(GfnRange range, size_t budget = ~size_t{0}, Level target = Level::k4K) {
    return SplitShadowPages(turn, tables, range, target, budget);
  }
  ShadowGrant GrantAt(const ShadowPage& page, unsigned index) const {
    return GrantOf(ShadowFormat::kPaging, page.slot(index).Load());
  }

  uint64_t flushes = 0;
  std::vector<std::string> bugs;
  PoolMemory memory;
  TablePool pool;
  VmCounts counts;
  EntryChange change{counts};
  Mutex turn_mutex;
  const Turn turn{turn_mutex};
  ShadowTables tables;
};

constexpr uint64_t kLarge = FramesPerEntry(Level::k2M);
// Beyond all that is mapped: where the guest's tables lie.
constexpr Gfn kTables{uint64_t{1} << 30};

TEST(ShadowSplitTest, B8_TenThousandHugePagesKeepTheGuestsRightsOnEveryChildWithoutAFlush) {
  constexpr unsigned kPages = 20, kHuge = kPages * 512;
  static_assert(kHuge > 10'000);
  Shadows shadows(kHuge + kPages);
  std::vector<ShadowPage*> pages;
  const auto rights_of = [](uint64_t n) { return GuestRights::FromBits(n * 5 + n / 7); };
  for (uint64_t n = 0; n < kHuge; ++n) {
    if (n % 512 == 0) pages.push_back(&shadows.NewPage(kTables + n, Level::k2M));
    shadows.Leaf(*pages.back(), n % 512, Gfn(n * kLarge), rights_of(n));
  }
  const uint64_t before = shadows.flushes;
  const ShadowSplitResult result = shadows.Split({Gfn(0), kHuge * kLarge});
  EXPECT_EQ(result.split_2m, kHuge);
  EXPECT_EQ(result.flushes, 0u);
  EXPECT_EQ(result.next, std::nullopt);
  EXPECT_EQ(shadows.flushes, before);
  for (uint64_t n = 0; n < kHuge; ++n) {
    const ShadowPage* const child = shadows.tables.ChildAt(*pages[n / 512], n % 512);
    ASSERT_NE(child, nullptr);
    const TableRole& role = child->role();
    ASSERT_TRUE(role.level == Level::k4K && role.direct && RightsOf(role) == rights_of(n)) << n;
    for (unsigned i = 0; i < 512; ++i) {
      const ShadowGrant grant = shadows.GrantAt(*child, i);
      const bool same = child->GfnAt(i) == Gfn(n * kLarge + i) &&
                        child->slot(i).Load().address() == HpaOf(Pfn(n * kLarge + i)) &&
                        grant.write == rights_of(n).write() && grant.user == rights_of(n).user() &&
                        grant.execute == rights_of(n).execute();
      if (!same) FAIL() << "entry " << i << " of the child of " << n;
    }
  }
  EXPECT_EQ(AuditShadow(shadows.turn, shadows.tables), std::nullopt);
  EXPECT_TRUE(shadows.bugs.empty());
}

TEST(ShadowSplitTest, B8_AChildThatIsPartlyFilledKeepsItsLeavesAndALowerTableCostsAFlush) {
  Shadows shadows(8);
  ShadowPage& giant = shadows.NewPage(kTables, Level::k1G);
  shadows.Leaf(giant, 0, Gfn(0), GuestRights::All());
  ShadowPage& child = shadows.NewPage(Gfn(0), Level::k2M, true);
  const ShadowGrant less{.execute = true};
  shadows.Leaf(child, 3, Gfn(3 * kLarge), GuestRights::All(), less);
  EXPECT_EQ(shadows.Split({Gfn(0), 1}, 1, Level::k2M).flushes, 0u);
  EXPECT_EQ(shadows.tables.ChildAt(giant, 0), &child);
  EXPECT_EQ(shadows.GrantAt(child, 3), less);
  EXPECT_TRUE(shadows.GrantAt(child, 4).write);

  shadows.Leaf(giant, 1, Gfn(1 << 18), GuestRights::All());
  ShadowPage& other = shadows.NewPage(Gfn(1 << 18), Level::k2M, true);
  ShadowPage& small = shadows.NewPage(Gfn(1 << 18), Level::k4K, true);
  shadows.tables.Link(shadows.turn, other, 0, small);
  EXPECT_EQ(shadows.Split({Gfn(1 << 18), 1}, 1, Level::k2M).flushes, 1u);
  EXPECT_EQ(shadows.tables.ChildAt(other, 0), &small);
  EXPECT_EQ(AuditShadow(shadows.turn, shadows.tables), std::nullopt);
}

TEST(ShadowSplitTest, B9_WithoutATableTheHugePageStaysIsCountedAndIsSplitLater) {
  Shadows shadows(2);
  ShadowPage& page = shadows.NewPage(kTables, Level::k2M);
  shadows.Leaf(page, 0, Gfn(0), GuestRights::All());
  shadows.Leaf(page, 1, Gfn(kLarge), GuestRights::User());
  ShadowSplitResult result = shadows.Split({Gfn(0), 2 * kLarge});
  EXPECT_EQ(result.split_2m, 1u);
  EXPECT_EQ(result.kept_for_tables, 1u);
  EXPECT_EQ(shadows.tables.StateAt(page, 1), SlotState::kLeaf);
  EXPECT_EQ(AuditShadow(shadows.turn, shadows.tables), std::nullopt);
  // Room again: the first one's table goes.
  ShadowFlush flush = shadows.tables.NewFlush();
  shadows.tables.Zap(shadows.turn, *shadows.tables.ChildAt(page, 0), flush);
  flush.Finish(shadows.turn);
  result = shadows.Split({Gfn(0), 2 * kLarge});
  EXPECT_EQ(result.split_2m, 1u);
  EXPECT_EQ(result.kept_for_tables, 0u);

  Shadows capped(8, 1);
  ShadowPage& only = capped.NewPage(kTables, Level::k2M);
  capped.Leaf(only, 0, Gfn(0), GuestRights::All());
  EXPECT_EQ(capped.Split({Gfn(0), kLarge}).kept_for_room, 1u);
  EXPECT_EQ(capped.tables.StateAt(only, 0), SlotState::kLeaf);
}

TEST(ShadowSplitTest, B9_ASplitThatUsesUpItsBudgetGoesOnWhereItStopped) {
  Shadows shadows(600);
  ShadowPage& page = shadows.NewPage(kTables, Level::k1G);
  ShadowPage& large = shadows.NewPage(kTables + 1, Level::k2M);
  shadows.Leaf(page, 0, Gfn(0), GuestRights::All());
  for (unsigned i = 0; i < 10; ++i) {
    shadows.Leaf(large, i, Gfn((1 << 18) + i * kLarge), GuestRights::All());
  }
  uint64_t split_1g = 0, split_2m = 0;
  int calls = 0;
  GfnRange range{Gfn(0), uint64_t{2} << 18};
  const Gfn end = range.end();
  for (std::optional<Gfn> next = range.first; next && calls < 1000; ++calls) {
    const ShadowSplitResult result = shadows.Split({*next, end - *next}, 7);
    split_1g += result.split_1g;
    split_2m += result.split_2m;
    next = result.next;
    ASSERT_EQ(AuditShadow(shadows.turn, shadows.tables), std::nullopt);
  }
  EXPECT_EQ(split_1g, 1u);
  EXPECT_EQ(split_2m, 512u + 10);
  EXPECT_EQ(calls, (1 + 512 + 10 + 6) / 7);
}

TEST(ShadowSplitTest, B10_ASmallChildRegainsFetchExactlyWhereTheGuestGrantedIt) {
  Shadows shadows(4);
  ShadowPage& page = shadows.NewPage(kTables, Level::k2M);
  shadows.Leaf(page, 0, Gfn(0), GuestRights::All(),
               ShadowGrant{.write = true, .nx_huge_page = true});
  shadows.Leaf(page, 1, Gfn(kLarge), GuestRights::User());
  EXPECT_FALSE(shadows.GrantAt(page, 0).execute);
  // B5: the cache has what the guest granted.
  EXPECT_EQ(page.RightsAt(0), GuestRights::All());
  shadows.Split({Gfn(0), 2 * kLarge});
  const ShadowPage& regained = *shadows.tables.ChildAt(page, 0);
  const ShadowPage& never = *shadows.tables.ChildAt(page, 1);
  for (const unsigned i : {0u, 100u, 511u}) {
    EXPECT_TRUE(shadows.GrantAt(regained, i).execute);
    EXPECT_FALSE(shadows.GrantAt(regained, i).nx_huge_page);
    EXPECT_FALSE(shadows.GrantAt(never, i).execute);
  }
}

}  // namespace
}  // namespace twinroot::mmu
