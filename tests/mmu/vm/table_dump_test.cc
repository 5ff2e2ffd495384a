// Tables as they lie in memory: every one once, in the order of a walk, however few a call takes.
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <set>
#include <thread>
#include <vector>

#include "mmu/tables/entry_slot.h"
#include "tests/fakes/test_space.h"
#include "tests/mmu/vm/slots_fixture.h"

namespace twinroot::mmu {
namespace {

constexpr auto kPrivate = MemoryKind::kPrivate;
constexpr auto kShared = MemoryKind::kShared;

// Both kinds mapped, in small pages and large ones.
void Fill(SlotSpace& t) {
  ASSERT_TRUE(t.Add(0, 4096, 0).ok());
  ASSERT_TRUE(t.Convert({Frames(512, 512), Frames(1030, 3)}, kShared).ok());
  for (const uint64_t gfn : {5, 1024, 1029, 1600, 2050}) ASSERT_TRUE(t.Fixes(gfn, kPrivate));
  for (const uint64_t gfn : {600, 1030, 1032}) ASSERT_TRUE(t.Fixes(gfn, kShared));
}

std::vector<TableImage> Dump(const GuestAddressSpace& space, MemoryKind root, size_t at_once) {
  std::vector<TableImage> all;
  for (;;) {
    const auto some = space.DumpTables(root, all.empty() ? nullptr : &all.back(), at_once);
    EXPECT_TRUE(some.ok()) << some.status();
    if (!some.ok() || some->empty()) return all;
    EXPECT_LE(some->size(), at_once);
    all.insert(all.end(), some->begin(), some->end());
  }
}

TEST(TableDumpTest, EveryTableIsToldOfOnceParentsFirst) {
  SlotSpace t;
  Fill(t);
  std::set<uint64_t> told;
  for (const MemoryKind root : kAllKinds) {
    const std::vector<TableImage> tables = Dump(*t.space, root, 1000);
    ASSERT_FALSE(tables.empty());
    EXPECT_EQ(tables.front().hpa, t.space->ept_pointer(root).root());
    std::set<uint64_t> linked = {tables.front().hpa.value};
    for (const TableImage& table : tables) {
      EXPECT_TRUE(told.insert(table.hpa.value).second) << "told twice";
      EXPECT_EQ(linked.erase(table.hpa.value), 1u) << "not below a table of before";
      for (const uint64_t word : table.entries) {
        const EptEntry entry(word);
        if (StateOf(entry, table.level) == SlotState::kLink) linked.insert(entry.address().value);
      }
    }
    EXPECT_TRUE(linked.empty()) << "a link leads to a table that nobody told of";
  }
  EXPECT_EQ(told.size(), t.space->stats().table_pages);
}

TEST(TableDumpTest, PiecesOfAnySizeMakeTheSameWhole) {
  SlotSpace t;
  Fill(t);
  for (const MemoryKind root : kAllKinds) {
    const std::vector<TableImage> whole = Dump(*t.space, root, 1000);
    for (const size_t at_once : {size_t{1}, size_t{2}, size_t{3}, whole.size()}) {
      const std::vector<TableImage> pieces = Dump(*t.space, root, at_once);
      ASSERT_EQ(pieces.size(), whole.size()) << at_once;
      for (size_t i = 0; i < whole.size(); ++i) {
        EXPECT_EQ(pieces[i].hpa, whole[i].hpa);
        EXPECT_EQ(pieces[i].level, whole[i].level);
        EXPECT_EQ(pieces[i].first, whole[i].first);
        EXPECT_EQ(pieces[i].entries, whole[i].entries);
      }
    }
  }
}

TEST(TableDumpTest, ItShowsTheEntriesThatAWalkReads) {
  SlotSpace t;
  Fill(t);
  std::map<uint64_t, uint64_t> words;  // by address
  for (const TableImage& table : Dump(*t.space, kShared, 2)) {
    for (uint64_t i = 0; i < table.entries.size(); ++i) {
      words[table.hpa.value + 8 * i] = table.entries[i];
    }
  }
  const auto walk = t.space->Translate(Gpa(uint64_t{1030} << kPageShift), kShared);
  ASSERT_TRUE(walk.ok() && walk->mapped);
  for (const TranslationStep& step : walk->steps) {
    ASSERT_EQ(words.count(step.entry_hpa.value), 1u);
    EXPECT_EQ(words[step.entry_hpa.value], step.entry);
  }
}

TEST(TableDumpTest, TablesNameTheFirstPageThatTheyMap) {
  SlotSpace t;
  Fill(t);
  for (const MemoryKind root : kAllKinds) {
    for (const TableImage& table : Dump(*t.space, root, 1000)) {
      const uint64_t frames = kEntriesPerTable * FramesPerEntry(table.level);
      EXPECT_EQ(table.first.value % frames, 0u);
      EXPECT_LT(table.first.value, 4096u);
    }
  }
}

TEST(TableDumpTest, AVmWithoutASharedRootHasNoneToTellOf) {
  TestSpace t({.shared_bit = {}});
  EXPECT_EQ(t.space->DumpTables(kShared, nullptr, 1).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Dump(*t.space, kPrivate, 1).size(), t.space->stats().table_pages);
}

// Dumps beside faults and changes: each piece follows links that were there, to tables that stay.
TEST(TableDumpTest, DumpsGoOnBesideFaultsAndChanges) {
  SlotSpace t;
  Fill(t);
  std::atomic<bool> stop{false};
  std::thread changer([&] {
    for (int i = 0; i < 200; ++i) {
      // A table where a large page could be, until it is empty again.
      const MemoryKind kind = i % 2 == 0 ? kShared : kPrivate;
      EXPECT_TRUE(t.Convert({Frames(1540, 3)}, kind).ok());
      EXPECT_TRUE(t.Fixes(1541, kind));
      (void)t.Fixes(1600, kPrivate);
      EXPECT_TRUE(t.space->Zap(Frames(1536, 512)).ok());
    }
    stop = true;
  });
  while (!stop) {
    for (const MemoryKind root : kAllKinds) {
      for (const TableImage& table : Dump(*t.space, root, 2)) {
        EXPECT_EQ(table.hpa.value % kPageSize, 0u);
        EXPECT_NE(t.pool.At(table.hpa), nullptr);
      }
    }
  }
  changer.join();
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

}  // namespace
}  // namespace twinroot::mmu
