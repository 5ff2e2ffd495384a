#include "cli/suggestion.h"

#include <gtest/gtest.h>

namespace twinroot::cli {
namespace {

TEST(Suggestion, IsTheWordThatDiffersLeast) {
  const std::vector<std::string> names = {"demo", "db-1", "db-2", "webserver"};
  EXPECT_EQ(NearestTo("dmeo", names), "demo");
  EXPECT_EQ(NearestTo("DEMO", names), "demo");
  EXPECT_EQ(NearestTo("webservr", names), "webserver");
  EXPECT_EQ(NearestTo("db2", names), "db-2");
}

TEST(Suggestion, IsNoneWhereNothingIsNear) {
  EXPECT_EQ(NearestTo("", {"demo"}), "");
  EXPECT_EQ(NearestTo("xyz", {"demo"}), "");
  EXPECT_EQ(NearestTo("q", {"a", "b"}), "");
  EXPECT_EQ(NearestTo(std::string(100'000, 'x'), {std::string(100'000, 'y')}), "");
}

}  // namespace
}  // namespace twinroot::cli
