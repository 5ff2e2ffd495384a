#include "cli/memory_map.h"

#include <gtest/gtest.h>

#include <cstring>

namespace twinroot::cli {
namespace {

constexpr uint64_t k4K = 4096;
constexpr uint64_t k2M = 2 << 20;
constexpr uint64_t kRead = 1;
constexpr uint64_t kReadWrite = 3;
constexpr uint64_t kLarge = 1 << 7;
constexpr uint64_t kDirty = 1 << 9;

v1::MemoryRun Attributes(uint64_t gpa, uint64_t size, v1::MemoryKind kind) {
  v1::MemoryRun run;
  run.set_gpa(gpa);
  run.set_size(size);
  run.set_kind(kind);
  return run;
}

// A table with a few of its entries.
v1::DumpTablesResponse Table(v1::MemoryKind root, uint32_t level, uint64_t gpa,
                             const std::vector<std::pair<size_t, uint64_t>>& entries) {
  v1::DumpTablesResponse tables;
  tables.set_root(root);
  auto* table = tables.add_tables();
  table->set_level(level);
  table->set_gpa(gpa);
  std::string page(k4K, '\0');
  for (const auto& [index, entry] : entries) std::memcpy(&page[index * 8], &entry, 8);
  table->set_entries(page);
  return tables;
}

class MemoryMaps : public testing::Test {
 protected:
  // 4 MiB, the page at 2 MiB + 4 KiB shared.
  MemoryMaps() {
    map_.AddAttributes(Attributes(0, k2M + k4K, v1::MEMORY_KIND_PRIVATE));
    map_.AddAttributes(Attributes(k2M + k4K, k4K, v1::MEMORY_KIND_SHARED));
    map_.AddAttributes(Attributes(k2M + 2 * k4K, k2M - 2 * k4K, v1::MEMORY_KIND_PRIVATE));
  }
  void AddTables(WriteMark mark) {
    map_.AddTables(Table(v1::MEMORY_KIND_PRIVATE, 2, 0, {{0, kReadWrite | kLarge}, {1, 7}}), mark);
    map_.AddTables(Table(v1::MEMORY_KIND_PRIVATE, 1, k2M, {{0, kReadWrite | kDirty}, {2, kRead}}),
                   mark);
    map_.AddTables(Table(v1::MEMORY_KIND_SHARED, 1, k2M, {{0, kReadWrite}, {1, kRead}}), mark);
    map_.TablesAreKnown();
  }
  std::vector<std::string> Runs() {
    std::vector<std::string> lines;
    for (const MapRun& run : map_.Runs()) {
      lines.push_back(std::to_string(run.gpa / k4K) + "+" + std::to_string(run.size / k4K) +
                      (run.kind == v1::MEMORY_KIND_SHARED ? " s " : " p ") +
                      "?-4L"[static_cast<int>(run.pages)] + (run.written ? "w" : ""));
    }
    return lines;
  }

  MemoryMap map_;
};

TEST_F(MemoryMaps, WithoutTablesSayOnlyWhichKind) {
  EXPECT_EQ(Runs(), (std::vector<std::string>{"0+513 p ?", "513+1 s ?", "514+510 p ?"}));
}

TEST_F(MemoryMaps, ShowLeavesOfTheRootThatAPageIsReachedThrough) {
  AddTables(WriteMark::kNone);
  EXPECT_EQ(Runs(), (std::vector<std::string>{"0+512 p L", "512+1 p 4", "513+1 s 4", "514+1 p 4",
                                              "515+509 p -"}));
}

TEST_F(MemoryMaps, TellWrittenPagesByTheMarkOfTheLog) {
  AddTables(WriteMark::kWritable);
  EXPECT_EQ(Runs(), (std::vector<std::string>{"0+512 p Lw", "512+1 p 4w", "513+1 s 4", "514+1 p 4",
                                              "515+509 p -"}));
}

TEST_F(MemoryMaps, TellDirtyBits) {
  AddTables(WriteMark::kDirty);
  EXPECT_EQ(Runs().at(0), "0+512 p L");
  EXPECT_EQ(Runs().at(1), "512+1 p 4w");
}

TEST_F(MemoryMaps, ATableThatComesTwiceCountsOnce) {
  AddTables(WriteMark::kNone);
  const auto once = Runs();
  AddTables(WriteMark::kNone);
  EXPECT_EQ(Runs(), once);
}

TEST_F(MemoryMaps, TotalsAddUpToTheMemory) {
  AddTables(WriteMark::kWritable);
  const MapTotals totals = TotalsOf(map_.Runs());
  EXPECT_EQ(totals.private_memory.all + totals.shared_memory.all, 2 * k2M);
  EXPECT_EQ(totals.private_memory.large, k2M);
  EXPECT_EQ(totals.private_memory.small, 2 * k4K);
  EXPECT_EQ(totals.private_memory.written, k2M + k4K);
  EXPECT_EQ(totals.shared_memory.small, k4K);
}

TEST_F(MemoryMaps, CellsHoldWhatIsInThem) {
  AddTables(WriteMark::kNone);
  const auto cells = CellsOf(map_.Runs(), 0, k2M);
  ASSERT_EQ(cells.size(), 2u);
  EXPECT_TRUE(cells[0].is_private && cells[0].large && !cells[0].is_shared && !cells[0].small);
  EXPECT_TRUE(cells[1].is_private && cells[1].is_shared && cells[1].small);
}

TEST(CellSize, IsTheSmallestPowerOfTwoThatFits) {
  EXPECT_EQ(CellSize(k2M, 512), k4K);
  EXPECT_EQ(CellSize(k2M, 511), 2 * k4K);
  EXPECT_EQ(CellSize(uint64_t{1} << 36, 1024), uint64_t{1} << 26);
  EXPECT_EQ(CellSize(1, 1), k4K);
}

}  // namespace
}  // namespace twinroot::cli
