#include "daemon/access/denial_limit.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace twinroot::access {
namespace {

const absl::Time kBegin = absl::FromUnixSeconds(1'700'000'000);

void Fill(DenialLimit& limit, const std::string& principal, absl::Time now) {
  for (uint32_t i = 0; i < DenialLimit::kLines; ++i) {
    ASSERT_EQ(limit.Take(principal, now), 0u) << principal << ", line " << i;
  }
}

TEST(DenialLimit, AFloodOfOnePrincipalGetsSoManyLinesAWindow) {
  DenialLimit limit;
  Fill(limit, "uid:1000", kBegin);
  EXPECT_EQ(limit.Take("uid:1000", kBegin), std::nullopt);
  EXPECT_EQ(limit.Take("uid:1000", kBegin + DenialLimit::kWindow - absl::Nanoseconds(1)),
            std::nullopt);
}

TEST(DenialLimit, OthersAreNotLimitedByIt) {
  DenialLimit limit;
  Fill(limit, "uid:1000", kBegin);
  Fill(limit, "uid:1001", kBegin);
}

TEST(DenialLimit, TheNextLineSaysHowManyHadNone) {
  DenialLimit limit;
  Fill(limit, "uid:1000", kBegin);
  for (int i = 0; i < 7; ++i) EXPECT_EQ(limit.Take("uid:1000", kBegin), std::nullopt);
  EXPECT_EQ(limit.Take("uid:1000", kBegin + DenialLimit::kWindow), 7u);
  EXPECT_EQ(limit.Take("uid:1000", kBegin + DenialLimit::kWindow), 0u);
}

TEST(DenialLimit, BeyondItsRoomPrincipalsShareOneCount) {
  DenialLimit limit;
  for (size_t i = 0; i < DenialLimit::kMaxPrincipals; ++i) {
    ASSERT_EQ(limit.Take(absl::StrCat("uid:", i), kBegin), 0u);
  }
  Fill(limit, "one more", kBegin);
  EXPECT_EQ(limit.Take("another", kBegin), std::nullopt);
  // Old ones have gone by then.
  EXPECT_EQ(limit.Take("another", kBegin + DenialLimit::kWindow), 0u);
  Fill(limit, "one more", kBegin + DenialLimit::kWindow);
}

}  // namespace
}  // namespace twinroot::access
