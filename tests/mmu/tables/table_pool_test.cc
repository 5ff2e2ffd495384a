#include "mmu/tables/table_pool.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace twinroot::mmu
