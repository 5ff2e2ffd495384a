#include "daemon/rpc/ept_words.h"

#include "gtest/gtest.h"
#include "mmu/hw/soft_bits.h"

namespace twinroot::rpc {
namespace {

using mmu::Access;
using mmu::EptEntry;
using mmu::Hpa;
using mmu::Level;
using mmu::MemType;

TEST(EptWords, EntriesReadAsPeopleSayThem) {
  EXPECT_EQ(EptEntryInWords(EptEntry::Table(Hpa(0x1000)), Level::k512G), "rwx table");
  EXPECT_EQ(EptEntryInWords(EptEntry::Leaf(Hpa(0x1000), Level::k4K,
                                           Access::Read() | Access::Write(), MemType::kWriteBack),
                            Level::k4K),
            "rw- 4K page WB");
  EXPECT_EQ(
      EptEntryInWords(EptEntry::Leaf(Hpa(0), Level::k2M, Access::Fetch(), MemType::kUncacheable),
                      Level::k2M),
      "--x 2M page UC");
  EXPECT_EQ(EptEntryInWords(mmu::kEmptyEntry, Level::k4K), "not present");
  EXPECT_EQ(EptEntryInWords(mmu::kFrozenEntry, Level::k2M), "frozen");
}

// The same bits mean a link above the lowest table and a page in it.
TEST(EptWords, LowestLevelIsAlwaysAPage) {
  const EptEntry entry(0x1037);
  EXPECT_EQ(EptEntryInWords(entry, Level::k4K), "rwx 4K page WB");
  EXPECT_EQ(EptEntryInWords(entry, Level::k1G), "rwx table");
}

}  // namespace
}  // namespace twinroot::rpc
