// The explorer finds what it is there for: a proof that its silence about the engine means
// something.
#include "tests/schedules/explorer.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "tests/schedules/world_scenario.h"

namespace twinroot::schedules {
namespace {

struct World {
  std::atomic<uint64_t> word{0};
  std::mutex a, b;
  std::unique_ptr<uint64_t> thing = std::make_unique<uint64_t>(7);
};

class Toy : public WorldScenario<World> {
 public:
  explicit Toy(std::vector<std::vector<Body>> bodies)
      : WorldScenario(
            "toy", std::move(bodies),
            [](World& world) {
              return End{"", {world.word.load()}};
            },
            [] {}) {}
};

void AddOne(World& world) { world.word.store(world.word.load() + 1); }

constexpr int64_t kMany = 1'000'000;

TEST(Explorer, AnUpdateThatGetsLostIsFoundAndItsScheduleRepeatsIt) {
  Toy toy({{AddOne}, {AddOne}});
  const Coverage coverage = Explore(toy, 1, kMany);
  const size_t at = coverage.failure.find("TWINROOT_SCHEDULE='toy: ");
  ASSERT_NE(at, std::string::npos) << coverage.failure;
  const std::string schedule = coverage.failure.substr(coverage.failure.find(": ", at) + 2);
  EXPECT_EQ(Repeat(toy, schedule).state, std::vector<uint64_t>{1});
  EXPECT_EQ(Repeat(toy, "a").state, std::vector<uint64_t>{2});
}

TEST(Explorer, AnUpdateUnderALockIsNotLost) {
  const auto locked = [](World& world) {
    const std::lock_guard<std::mutex> lock(world.a);
    AddOne(world);
  };
  Toy toy({{locked}, {locked}, {locked}});
  const Coverage coverage = Explore(toy, 3, kMany);
  EXPECT_EQ(coverage.failure, "");
  EXPECT_EQ(coverage.bound, 3);
  EXPECT_EQ(coverage.states, 1u);
}

// Each digit is a step: every order of three and three of them is another word.
TEST(Explorer, EveryOrderOfTheStepsIsReachedWithEnoughPreemptions) {
  const auto digits = [](uint64_t digit) {
    return [digit](World& world) {
      for (int i = 0; i < 3; ++i) {
        uint64_t seen = world.word.load();
        while (!world.word.compare_exchange_strong(seen, seen * 10 + digit)) {
        }
      }
    };
  };
  const auto operation = [](uint64_t digit) {
    return [digit](World& world) {
      uint64_t seen = world.word.load();
      while (!world.word.compare_exchange_strong(seen, seen * 10 + digit)) {
      }
    };
  };
  // By operations, all of them are serial orders.
  Toy serial(
      {{operation(1), operation(1), operation(1)}, {operation(2), operation(2), operation(2)}});
  EXPECT_EQ(Explore(serial, 1, kMany).states, 20u);  // 6! / (3! 3!)
  // By steps most are none, and the first of those is reported.
  Toy steps({{digits(1)}, {digits(2)}});
  EXPECT_NE(Explore(steps, 1, kMany).failure, "");
}

TEST(Explorer, WhoWaitsForAnotherLetsHimGoOn) {
  Toy toy({{[](World& world) {
             while (world.word.load() == 0) std::this_thread::yield();
           }},
           {[](World& world) { world.word.store(1); }}});
  const Coverage coverage = Explore(toy, 2, kMany);
  EXPECT_EQ(coverage.failure, "");
  EXPECT_GT(coverage.schedules, 2);
}

class ExplorerDeathTest : public testing::Test {
 protected:
  ExplorerDeathTest() { testing::FLAGS_gtest_death_test_style = "threadsafe"; }
};

TEST_F(ExplorerDeathTest, LocksInOppositeOrdersAreADeadlock) {
  const auto locks = [](std::mutex World::*first, std::mutex World::*second) {
    return [=](World& world) {
      const std::lock_guard<std::mutex> one(world.*first);
      const std::lock_guard<std::mutex> two(world.*second);
    };
  };
  EXPECT_EXIT(
      {
        Toy toy({{locks(&World::a, &World::b)}, {locks(&World::b, &World::a)}});
        Explore(toy, 1, kMany);
      },
      testing::ExitedWithCode(1), "deadlock.*\n.*TWINROOT_SCHEDULE='toy: a1 b");
}

TEST_F(ExplorerDeathTest, TwoWhoWaitForEachOtherAreADeadlockToo) {
  const auto wait = [](World& world) {
    while (world.word.load() == 0) std::this_thread::yield();
  };
  EXPECT_EXIT(
      {
        Toy toy({{wait}, {wait}});
        Explore(toy, 1, kMany);
      },
      testing::ExitedWithCode(1), "all threads wait");
}

TEST_F(ExplorerDeathTest, MemoryThatIsReadAfterItWasFreedIsFound) {
  EXPECT_EXIT(
      {
        Toy toy({{[](World& world) {
                   const uint64_t* thing = world.word.load() == 0 ? world.thing.get() : nullptr;
                   if (world.word.load() == 0 || thing == nullptr) return;
                   world.word.store(*thing);
                 }},
                 {[](World& world) {
                   world.word.store(1);
                   world.thing.reset();
                 }}});
        Explore(toy, 2, kMany);
      },
      testing::ExitedWithCode(1), "after it was freed");
}

}  // namespace
}  // namespace twinroot::schedules
