// Random guests on shadows see what they see without, and the audit is clean after each step.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>

#include "tests/mmu/shadow/random_guest.h"

namespace twinroot::mmu {
namespace {

class RandomGuestsTest : public ::testing::TestWithParam<Arrangement> {};

TEST_P(RandomGuestsTest, SeeTheSameWithAndWithoutShadows) {
  const char* given = std::getenv("TWINROOT_SEED");
  const uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
  uint64_t done = 0, faulted = 0, shadow_faults = 0, emulated = 0;
  constexpr uint64_t kGuests = 4, kMostGuests = 64, kSteps = 150;
  // Some guests hardly get their tables right: others come until the programs were not idle.
  const auto idle = [&] {
    return done < kGuests * kSteps / 50 || faulted == 0 || shadow_faults == 0 || emulated == 0;
  };
  for (uint64_t guest = 0; guest < kGuests || (idle() && guest < kMostGuests); ++guest) {
    SCOPED_TRACE(::testing::Message() << "TWINROOT_SEED=" << seed << ", guest " << guest);
    RandomGuest machine(std::mt19937_64(seed + guest), GetParam());
    for (uint64_t step = 0; step < kSteps; ++step) {
      const std::string wrong = machine.Step();
      ASSERT_EQ(wrong, "") << "step " << step;
      if (HasFatalFailure()) return;
    }
    done += machine.done;
    faulted += machine.faulted;
    shadow_faults += machine.shadow().faults;
    emulated += machine.shadow().emulated;
  }
  EXPECT_FALSE(idle()) << done << " accesses, " << faulted << " faults, " << shadow_faults
                       << " of shadows, " << emulated << " by hand; TWINROOT_SEED=" << seed;
}

INSTANTIATE_TEST_SUITE_P(Arrangements, RandomGuestsTest, ::testing::ValuesIn(kArrangements),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace twinroot::mmu
