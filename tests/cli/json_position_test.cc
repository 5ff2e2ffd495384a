#include "cli/json_position.h"

#include <gtest/gtest.h>

namespace twinroot::cli {
namespace {

TEST(JsonPosition, LinesAndColumnsCountFromOne) {
  const TextPosition first = PositionOfOffset("ab\ncd", 0);
  EXPECT_EQ(first.line, 1u);
  EXPECT_EQ(first.column, 1u);
  const TextPosition last = PositionOfOffset("ab\ncd", 4);
  EXPECT_EQ(last.line, 2u);
  EXPECT_EQ(last.column, 2u);
}

TEST(JsonPosition, JsonHasNoSyntaxError) {
  for (const char* json :
       {"{}", "[]", " {\"a\": [1, -2.5e3, \"x\\\"y\", true, null], \"b\": {\"c\": false}}\n"}) {
    EXPECT_EQ(FindJsonSyntaxError(json), std::nullopt) << json;
  }
}

TEST(JsonPosition, TheFirstWrongByteIsFound) {
  EXPECT_EQ(FindJsonSyntaxError("{\"a\" 1}"), 5u);
  EXPECT_EQ(FindJsonSyntaxError("{\"a\": }"), 6u);
  EXPECT_EQ(FindJsonSyntaxError("{\"a\": 1"), 7u);
  EXPECT_EQ(FindJsonSyntaxError("[1, 2] x"), 7u);
  EXPECT_EQ(FindJsonSyntaxError("{\"a\": 1,}"), 8u);
  EXPECT_EQ(FindJsonSyntaxError(""), 0u);
  EXPECT_EQ(FindJsonSyntaxError("\"open"), 5u);
}

TEST(JsonPosition, PathsLeadToTheirKeyOrElement) {
  const std::string json = R"({"vcpus": [{"steps": [{"exit": {}}, {"read": {"gpa": 1}}]}]})";
  EXPECT_EQ(FindJsonPath(json, "vcpus[0].steps[1].read.gpa"), json.find("\"gpa\""));
  EXPECT_EQ(FindJsonPath(json, "vcpus[0].steps[1]"), json.find("{\"read\""));
  EXPECT_EQ(FindJsonPath(json, "vcpus"), 1u);
  EXPECT_EQ(FindJsonPath(json, "vcpus[1]"), std::nullopt);
}

TEST(JsonPosition, NestingWithoutEndIsNotFollowed) {
  EXPECT_TRUE(FindJsonSyntaxError(std::string(100'000, '[')).has_value());
}

}  // namespace
}  // namespace twinroot::cli
