// One access that asks whether what it has read still holds, beside changes of its page and of
// another one of the same 1 GiB: in every order of their atomic steps with few preemptions.
#include <gtest/gtest.h>

#include <atomic>
#include <iostream>
#include <utility>
#include <vector>

#include "mmu/tables/epoch.h"
#include "mmu/tables/mutex.h"
#include "mmu/vm/invalidation_seq.h"
#include "tests/schedules/world_scenario.h"

namespace twinroot::mmu {
namespace {

constexpr GfnRange kPage{Gfn(5), 1};
constexpr GfnRange kOther{Gfn(700), 3};

struct World {
  InvalidationSeq seq;
  Mutex turn_mutex;
  std::atomic<bool> changes{false};  // kPage, between Begin and End
  std::atomic<uint64_t> changed{0};  // how often kPage was
  std::atomic<bool> wrongly_valid{false};
};

class SeqScenario : public schedules::WorldScenario<World> {
 public:
  explicit SeqScenario(std::vector<std::vector<Body>> bodies)
      : WorldScenario(
            "sequence", std::move(bodies),
            [](World& world) {
              return End{world.wrongly_valid
                             ? "it is said to be valid while it changes, or has changed"
                             : "",
                         {0}};
            },
            [] { EpochThread::Index(); }) {}
};

void BeginPage(World& world) {
  const Turn turn(world.turn_mutex);
  world.seq.Begin(turn, {kPage});
  world.changes = true;
}
void EndPage(World& world) {
  const Turn turn(world.turn_mutex);
  ++world.changed;
  world.changes = false;
  world.seq.End(turn);
}
void BeginOther(World& world) {
  const Turn turn(world.turn_mutex);
  world.seq.Begin(turn, {kOther});
}
void EndOther(World& world) {
  const Turn turn(world.turn_mutex);
  world.seq.End(turn);
}
void Look(World& world) {
  const EpochGuard guard;
  const uint64_t snapshot = world.seq.Snapshot(kPage.first);
  const uint64_t before = world.changed;
  const bool changes = world.changes;
  const bool changed = world.changed != before;
  if (world.seq.StillValid(guard, kPage, snapshot) && (changes || changed)) {
    world.wrongly_valid = true;
  }
}

TEST(SeqSchedules, NothingIsValidThatChangesWhateverElseChanges) {
  SeqScenario scenario(
      {{Look},
       {BeginPage, EndPage, BeginOther, EndOther, BeginPage, EndPage, BeginOther, EndOther}});
  const schedules::Coverage coverage = schedules::Explore(scenario, 3, 200'000);
  std::cout << coverage.schedules << " schedules of up to " << coverage.bound << " preemptions\n";
  EXPECT_EQ(coverage.failure, "");
  EXPECT_GE(coverage.bound, 2);
  EXPECT_GT(coverage.schedules, coverage.serial);
}

}  // namespace
}  // namespace twinroot::mmu
