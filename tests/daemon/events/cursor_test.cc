#include "daemon/events/cursor.h"

#include <set>

#include "gtest/gtest.h"

namespace twinroot::events {
namespace {

TEST(Cursor, IsReadBackAsItWasWritten) {
  const std::string epoch = NewEpoch();
  for (const uint64_t position : {uint64_t{0}, uint64_t{7}, ~uint64_t{0}}) {
    const auto cursor = ParseCursor(CursorText(epoch, position));
    ASSERT_TRUE(cursor.has_value());
    EXPECT_EQ(cursor->epoch, epoch);
    EXPECT_EQ(cursor->position, position);
  }
}

TEST(Cursor, HasOneSpelling) {
  for (const char* text :
       {"", "-", "0123456789abcdef", "0123456789abcdef-", "0123456789abcdef-+1",
        "0123456789abcdef-01", "0123456789abcdef- 1", "0123456789abcdef-1 ", "0123456789ABCDEF-1",
        "0123456789abcde-1", "0123456789abcdefg-1", "0123456789abcdef-18446744073709551616"}) {
    EXPECT_FALSE(ParseCursor(text).has_value()) << text;
  }
}

TEST(Cursor, EpochsDiffer) {
  std::set<std::string> epochs;
  for (int i = 0; i < 100; ++i) epochs.insert(NewEpoch());
  EXPECT_EQ(epochs.size(), 100u);
  for (const std::string& epoch : epochs) EXPECT_TRUE(IsEpoch(epoch)) << epoch;
}

}  // namespace
}  // namespace twinroot::events
