#include "mmu/tables/table_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

#include "tests/fakes/test_space.h"

namespace twinroot::mmu {
namespace {

constexpr Hpa kBase{uint64_t{1} << 32};

TEST(TablePoolTest, AddressesAndPointersDifferByAConstant) {
  PoolMemory memory(4);
  TablePool pool(kBase, memory.get(), 4);
  for (size_t i = 0; i < 4; ++i) {
    Table* table = pool.At(kBase + i * kPageSize);
    ASSERT_NE(table, nullptr);
    EXPECT_EQ(reinterpret_cast<std::byte*>(table->slots), memory.get() + i * kPageSize);
    EXPECT_EQ(pool.AddressOf(&table->slots[7]), kBase + i * kPageSize + 56);
  }
  EXPECT_EQ(pool.At(kBase + 4 * kPageSize), nullptr);
  EXPECT_EQ(pool.At(kBase - kPageSize), nullptr);
  EXPECT_EQ(pool.At(kBase + 8), nullptr);
}

TEST(TablePoolTest, APreloadThatFindsTooFewTakesNone) {
  PoolMemory memory(3);
  TablePool pool(kBase, memory.get(), 3);
  PreloadedTables mine(pool);
  ASSERT_TRUE(pool.Preload(2, mine).ok());
  PreloadedTables other(pool);
  const absl::Status refused = pool.Preload(2, other);
  EXPECT_TRUE(absl::IsResourceExhausted(refused));
  EXPECT_TRUE(other.empty());
  EXPECT_EQ(pool.stats().used, 2u);
  EXPECT_EQ(pool.stats().refused, 1u);
  EXPECT_TRUE(pool.Preload(1, other).ok());
}

TEST(TablePoolTest, APreloadIsFilledUpNotDoubled) {
  PoolMemory memory(3);
  TablePool pool(kBase, memory.get(), 3);
  PreloadedTables preload(pool);
  ASSERT_TRUE(pool.Preload(2, preload).ok());
  ASSERT_TRUE(pool.Preload(3, preload).ok());
  ASSERT_TRUE(pool.Preload(1, preload).ok());
  EXPECT_EQ(preload.size(), 3u);
}

TEST(TablePoolTest, WhatIsNotUsedGoesBack) {
  PoolMemory memory(3);
  TablePool pool(kBase, memory.get(), 3);
  {
    PreloadedTables preload(pool);
    ASSERT_TRUE(pool.Preload(3, preload).ok());
    Table& table = preload.Take();
    preload.Return(table);
  }
  EXPECT_EQ(pool.stats().used, 0u);
  EXPECT_EQ(pool.stats().peak, 3u);
}

TEST(TablePoolTest, ThreadsNeverShareATable) {
  constexpr size_t kPages = 64;
  PoolMemory memory(kPages);
  TablePool pool(kBase, memory.get(), kPages);
  std::vector<std::vector<Table*>> taken(4);
  std::vector<std::thread> threads;
  for (auto& mine : taken) {
    threads.emplace_back([&pool, &mine] {
      for (int i = 0; i < 16; ++i) {
        PreloadedTables preload(pool);
        ASSERT_TRUE(pool.Preload(1, preload).ok());
        mine.push_back(&preload.Take());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::set<Table*> all;
  for (const auto& mine : taken) all.insert(mine.begin(), mine.end());
  EXPECT_EQ(all.size(), kPages);
}

// A table with an entry in it, as it is when a zap has taken it out.
Table& UsedTable(TablePool& pool) {
  PreloadedTables preload(pool);
  EXPECT_TRUE(pool.Preload(1, preload).ok());
  Table& table = preload.Take();
  table.named = true;
  std::memset(static_cast<void*>(table.slots), 0x5A, kPageSize);
  return table;
}

TableList ListOf(const std::vector<Table*>& tables) {
  TableList list;
  for (Table* table : tables) list.Push(*table);
  return list;
}

bool IsZero(const Table& table) {
  const auto* bytes = reinterpret_cast<const std::byte*>(table.slots);
  return std::all_of(bytes, bytes + kPageSize, [](std::byte b) { return b == std::byte{0}; });
}

TEST(TablePoolTest, RetiredPagesAreNotUsedAndComeBackZeroedWhenThePoolRunsDry) {
  PoolMemory memory(3);
  TablePool pool(kBase, memory.get(), 3);
  Table& first = UsedTable(pool);
  Table& second = UsedTable(pool);
  EXPECT_EQ(pool.stats().used, 2u);
  pool.Retire(ListOf({&first, &second}));
  EXPECT_EQ(pool.stats().used, 0u);
  PreloadedTables preload(pool);
  ASSERT_TRUE(pool.Preload(3, preload).ok());
  EXPECT_EQ(pool.stats().used, 3u);
  EXPECT_EQ(pool.stats().refused, 0u);
  std::set<Table*> tables;
  while (!preload.empty()) {
    Table& table = preload.Take();
    tables.insert(&table);
    EXPECT_TRUE(IsZero(table));
    EXPECT_EQ(table.parent, nullptr);
  }
  EXPECT_EQ(tables.size(), 3u);
}

TEST(TablePoolTest, ARetiredPageIsNotReusedWhileAGuardStands) {
  PoolMemory memory(1);
  TablePool pool(kBase, memory.get(), 1);
  Table& table = UsedTable(pool);
  std::atomic<bool> inside{false}, leave{false};
  std::thread fault([&] {
    const EpochGuard guard;
    inside = true;
    while (!leave) std::this_thread::yield();
    EXPECT_FALSE(IsZero(table)) << "a fault looks at a page that somebody cleaned";
  });
  while (!inside) std::this_thread::yield();
  pool.Retire(ListOf({&table}));
  std::atomic<bool> loaded{false};
  std::thread other([&] {
    PreloadedTables preload(pool);
    EXPECT_TRUE(pool.Preload(1, preload).ok());
    loaded = true;
    EXPECT_TRUE(IsZero(preload.Take()));
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(loaded);
  leave = true;
  fault.join();
  other.join();
}

// One thread waits for the epoch with everything that was retired in its hands: the others wait
// for it too, instead of being told that there is nothing.
TEST(TablePoolTest, NobodyIsRefusedWhileRetiredPagesAreOnTheirWayBack) {
  PoolMemory memory(4);
  TablePool pool(kBase, memory.get(), 4);
  std::vector<Table*> tables;
  for (int i = 0; i < 4; ++i) tables.push_back(&UsedTable(pool));
  std::atomic<bool> inside{false}, leave{false};
  std::thread fault([&] {
    const EpochGuard guard;
    inside = true;
    while (!leave) std::this_thread::yield();
  });
  while (!inside) std::this_thread::yield();
  pool.Retire(ListOf(tables));
  std::vector<std::thread> others;
  for (int i = 0; i < 4; ++i) {
    others.emplace_back([&] {
      PreloadedTables preload(pool);
      const absl::Status loaded = pool.Preload(1, preload);
      EXPECT_TRUE(loaded.ok()) << loaded;
      if (loaded.ok()) preload.Take();
    });
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(pool.stats().used, 0u) << "what only waits to be free again does not count";
  leave = true;
  fault.join();
  for (std::thread& other : others) other.join();
  EXPECT_EQ(pool.stats().used, 4u);
}

TEST(TablePoolTest, ManyRetiredPagesAreFreedWithoutWaitingForAShortage) {
  constexpr size_t kPages = 1024;
  PoolMemory memory(kPages);
  TablePool pool(kBase, memory.get(), kPages);
  std::vector<Table*> tables;
  for (size_t i = 0; i < kPages / 2; ++i) tables.push_back(&UsedTable(pool));
  pool.Retire(ListOf(tables));
  EXPECT_TRUE(std::all_of(tables.begin(), tables.end(), [](Table* t) { return IsZero(*t); }));
  EXPECT_EQ(pool.stats().used, 0u);
}

}  // namespace
}  // namespace twinroot::mmu
