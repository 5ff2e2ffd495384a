#include "daemon/vcpu/kvm/repeated_errors.h"

#include <gtest/gtest.h>

namespace twinroot::kvm {
namespace {

using std::chrono::milliseconds;

TEST(RepeatedErrorsTest, TooManyInARowAreAnError) {
  RepeatedErrors errors;
  RepeatedErrors::Clock::time_point now{};
  for (int i = 1; i < RepeatedErrors::kMost; ++i) ASSERT_TRUE(errors.Add(now += milliseconds(1)));
  EXPECT_FALSE(errors.Add(now));
}

TEST(RepeatedErrorsTest, ThoseOfALongLifeAreNone) {
  RepeatedErrors errors;
  RepeatedErrors::Clock::time_point now{};
  for (int i = 0; i < 3 * RepeatedErrors::kMost; ++i) {
    ASSERT_TRUE(errors.Add(now += RepeatedErrors::kProgress)) << i;
  }
}

TEST(RepeatedErrorsTest, AnExitInBetweenForgetsThem) {
  RepeatedErrors errors;
  const RepeatedErrors::Clock::time_point now{};
  for (int i = 1; i < RepeatedErrors::kMost; ++i) ASSERT_TRUE(errors.Add(now));
  errors.Forget();
  EXPECT_TRUE(errors.Add(now));
}

}  // namespace
}  // namespace twinroot::kvm
