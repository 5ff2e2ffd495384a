#include "daemon/status_reason.h"

#include "gtest/gtest.h"

namespace twinroot {
namespace {

TEST(StatusReason, TravelsWithTheStatus) {
  const absl::Status status =
      WithReason(absl::NotFoundError("no VM"), "NO_SUCH_VM", {{"vm", "demo"}, {"hint", ""}});
  const absl::Status copy = status;
  EXPECT_EQ(copy.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(copy.message(), "no VM");
  EXPECT_EQ(ReasonOf(copy), "NO_SUCH_VM");
  EXPECT_EQ(MetadataOf(copy), (std::map<std::string, std::string>{{"vm", "demo"}, {"hint", ""}}));
}

TEST(StatusReason, StatusWithoutOneHasNone) {
  EXPECT_EQ(ReasonOf(absl::InternalError("x")), "");
  EXPECT_TRUE(MetadataOf(absl::InternalError("x")).empty());
  EXPECT_EQ(ReasonOf(absl::OkStatus()), "");
}

TEST(StatusReason, OkStaysOk) {
  EXPECT_TRUE(WithReason(absl::OkStatus(), "X").ok());
  EXPECT_EQ(ReasonOf(WithReason(absl::OkStatus(), "X")), "");
}

TEST(StatusReason, NewReasonReplacesTheOld) {
  absl::Status status = WithReason(absl::InternalError("x"), "A", {{"a", "1"}});
  status = WithReason(status, "B");
  EXPECT_EQ(ReasonOf(status), "B");
  EXPECT_TRUE(MetadataOf(status).empty());
}

TEST(StatusReason, NulEndsAText) {
  const absl::Status status =
      WithReason(absl::InternalError("x"), "A", {{"k", std::string("v\0w", 3)}, {"l", "m"}});
  EXPECT_EQ(MetadataOf(status), (std::map<std::string, std::string>{{"k", "v"}, {"l", "m"}}));
}

}  // namespace
}  // namespace twinroot
