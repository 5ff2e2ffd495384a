// The dry run says exactly what the change then does, over random changes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "tests/fakes/test_space.h"

namespace twinroot::mmu {
namespace {

uint64_t TestSeed() {
  const char* seed = std::getenv("TWINROOT_TEST_SEED");
  return seed != nullptr ? std::strtoull(seed, nullptr, 0) : std::random_device()();
}

constexpr uint64_t kFrames = 3 * 512 + 200;

// Everything that a dry run must leave alone.
std::string StateOf(TestSpace& t) {
  const AddressSpaceStats s = t.space->stats();
  std::string state = std::to_string(s.table_pages) + " " + std::to_string(s.flushes_range) + " " +
                      std::to_string(s.invalidations) + " " + std::to_string(s.splits_conversion) +
                      " " + std::to_string(t.pool.stats().used) + " " +
                      std::to_string(t.pool.stats().refused);
  for (const AttributeRun& run : t.space->GetMemoryAttributes()) {
    state += "; " + std::to_string(run.range.first.value) + "+" + std::to_string(run.range.count);
  }
  for (const MemoryKind kind : kAllKinds) {
    for (uint64_t gfn = 0; gfn < kFrames; gfn += 7) {
      const auto walk = t.space->Translate(Gpa(gfn << kPageShift), kind);
      state += "," + std::to_string(walk->steps.back().entry);
    }
    state += " " + std::to_string(t.pages.allocated(kind));
  }
  return state;
}

uint64_t Flushes(const AttributeChangePlan& plan) {
  uint64_t sum = 0;
  for (const auto& of_kind : plan.flushes) sum += of_kind[0] + of_kind[1];
  return sum;
}

void ExpectDone(const AttributeChangePlan& plan, const AttributeChangeResult& done,
                const AddressSpaceStats& before, const AddressSpaceStats& after) {
  EXPECT_EQ(plan.result.converted, done.converted);
  EXPECT_EQ(plan.result.redenied, done.redenied);
  ASSERT_EQ(plan.result.per_range.size(), done.per_range.size());
  uint64_t splits = 0;
  uint64_t recovered = 0;
  for (int kind = 0; kind < 2; ++kind) {
    for (int level = 0; level < 3; ++level) {
      const uint64_t from_above = level < 2 ? 512 * plan.split.leaves[kind][level + 1] : 0;
      EXPECT_EQ(after.leaves[kind][level],
                before.leaves[kind][level] + from_above - plan.split.leaves[kind][level] -
                    plan.zapped.leaves[kind][level] - plan.covered.leaves[kind][level] +
                    plan.recovered.leaves[kind][level])
          << kind << " " << level;
      splits += plan.split.leaves[kind][level];
      recovered += plan.recovered.leaves[kind][level];
    }
  }
  EXPECT_EQ(after.splits_conversion - before.splits_conversion, splits);
  EXPECT_EQ(plan.tables_needed, splits);
  EXPECT_EQ(after.splits_kept - before.splits_kept, plan.splits_kept);
  EXPECT_EQ(after.collapses_attributes - before.collapses_attributes, recovered);
  EXPECT_EQ(after.flushes_range - before.flushes_range, Flushes(plan));
}

// What the log says was discarded and copied.
uint64_t BytesOf(const std::vector<std::string>& calls, const std::string& verb) {
  uint64_t pages = 0;
  for (const std::string& call : calls) {
    if (call.rfind(verb, 0) == 0) {
      pages += std::strtoull(call.c_str() + call.find('+') + 1, nullptr, 0);
    }
  }
  return pages * kPageSize;
}

class AttributePlanTest : public testing::TestWithParam<TestSpaceOptions> {};

TEST_P(AttributePlanTest, SaysWhatTheChangeThenDoes) {
  const uint64_t seed = TestSeed();
  std::cout << "TWINROOT_TEST_SEED=" << seed << "\n";
  std::mt19937_64 random(seed);
  const auto pick = [&](uint64_t n) { return random() % n; };
  TestSpace t(GetParam());
  uint64_t splits = 0;
  uint64_t recovered = 0;
  for (int round = 0; round < 500; ++round) {
    for (uint64_t touches = pick(6); touches > 0; --touches) {
      t.Touch(pick(kFrames), static_cast<MemoryKind>(pick(2)),
              Access::FromBits(static_cast<uint8_t>(1 << pick(3))));
    }
    AttributeChange change;
    uint64_t at = 0;
    do {
      const uint64_t first = pick(4) == 0 ? at / 512 * 512 + 512 : at + pick(300);
      const uint64_t sizes[] = {1, 2, 64, 100, 256, 512, 700};
      if (first >= kFrames) break;
      const uint64_t count = std::min(sizes[pick(7)], kFrames - first);
      change.ranges.push_back(Frames(first, count));
      at = first + count;
    } while (pick(3) != 0);
    if (change.ranges.empty()) continue;
    const bool denies = pick(3) == 0;
    if (!denies || pick(4) == 0) change.kind = static_cast<MemoryKind>(pick(2));
    if (denies) change.deny = Access::FromBits(static_cast<uint8_t>(pick(3) == 0 ? pick(8) : 0));
    change.content = pick(2) == 0 ? Content::kPreserve : Content::kDestroy;
    change.requester = Requester::kGuest;

    const std::string state = StateOf(t);
    t.log.Take();
    const auto plan = t.space->PlanMemoryAttributes(change);
    ASSERT_TRUE(plan.ok()) << plan.status();
    ASSERT_TRUE(t.log.Take().empty());
    ASSERT_EQ(StateOf(t), state) << "a dry run changed something";

    const AddressSpaceStats before = t.space->stats();
    const auto done = t.space->SetMemoryAttributes(change);
    ASSERT_TRUE(done.ok()) << done.status();
    ExpectDone(*plan, *done, before, t.space->stats());
    const std::vector<std::string> calls = t.log.Take();
    EXPECT_EQ(BytesOf(calls, "discard"), plan->bytes_discarded);
    EXPECT_EQ(BytesOf(calls, "copy"), plan->bytes_copied);
    if (HasFailure()) FAIL() << "seed " << seed << " round " << round;
    splits += plan->tables_needed;
    recovered += t.space->stats().collapses_attributes - before.collapses_attributes;
    if (round % 50 == 0) {
      ASSERT_TRUE(t.space->Audit().ok()) << t.space->Audit();
    }
  }
  // Else the comparison says little.
  EXPECT_GT(splits + t.space->stats().splits_kept, 5u);
  if (!GetParam().external) {
    EXPECT_GT(recovered, 2u);
  }
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

INSTANTIATE_TEST_SUITE_P(Arrangements, AttributePlanTest,
                         testing::Values(TestSpaceOptions{.frames = kFrames},
                                         TestSpaceOptions{.frames = kFrames, .external = true},
                                         TestSpaceOptions{.guest_maxphyaddr = 45,
                                                          .execute_only_bit = 45,
                                                          .frames = kFrames}));

TEST(AttributePlanErrorTest, RefusesWhatTheChangeWouldRefuse) {
  TestSpace t({.shared_backing = false});
  AttributeChange change{.ranges = {Frames(5, 1)}, .kind = MemoryKind::kShared};
  EXPECT_TRUE(absl::IsFailedPrecondition(t.space->PlanMemoryAttributes(change).status()));
  change.atomicity = Atomicity::kEach;
  const auto plan = t.space->PlanMemoryAttributes(change);
  ASSERT_TRUE(plan.ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(plan->result.per_range[0].status));
  EXPECT_TRUE(plan->result.converted.empty());
  EXPECT_EQ(plan->bytes_discarded, 0u);
  change.ranges = {Frames(5, 0)};
  EXPECT_TRUE(absl::IsInvalidArgument(t.space->PlanMemoryAttributes(change).status()));
}

// As GuestRam: pages must be resolved one by one, and 2M is the largest leaf.
TEST(AttributePlanRecoveryTest, F5_SaysWhichLargePagesComeBackWhereNoPageIsKnownBeforehand) {
  TestSpace t({.frames = 1 << 18, .max_level = Level::k2M});
  ASSERT_FALSE(t.pages.Ready(Gfn(0), MemoryKind::kPrivate));
  for (const uint64_t first : {512, 1024, 2048}) {
    ASSERT_TRUE(t.Convert({Frames(first, 128)}, MemoryKind::kShared).ok());
    ASSERT_TRUE(t.Fixes(first + 200, MemoryKind::kPrivate));
  }
  ASSERT_TRUE(t.Convert({Frames(2500, 1)}, MemoryKind::kShared).ok());  // it stays mixed
  const AttributeChange back{
      .ranges = {Frames(512, 128), Frames(1024, 128), Frames(2048, 128), Frames(4096, 128)},
      .kind = MemoryKind::kPrivate};
  const auto plan = t.space->PlanMemoryAttributes(back);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->recovered.leaves[0][1], 2u);
  EXPECT_EQ(plan->recovered.leaves[0][2], 0u) << "the backing has no 1G page";
  EXPECT_EQ(plan->covered.leaves[0][0], 2u);
  const AddressSpaceStats before = t.space->stats();
  const auto done = t.space->SetMemoryAttributes(back);
  ASSERT_TRUE(done.ok()) << done.status();
  ExpectDone(*plan, *done, before, t.space->stats());
  EXPECT_EQ(t.LevelOf(712, MemoryKind::kPrivate), Level::k2M);
  EXPECT_EQ(t.LevelOf(1224, MemoryKind::kPrivate), Level::k2M);
  EXPECT_EQ(t.LevelOf(2248, MemoryKind::kPrivate), Level::k4K);
}

TEST(AttributePlanRecoveryTest, F5_WhereOnlyEmptyTablesStandNothingComesBack) {
  TestSpace t({.frames = 1 << 18});
  const std::vector<GfnRange> ranges = {Frames(0, 40000), Frames(50000, 1)};
  ASSERT_TRUE(t.Convert(ranges, MemoryKind::kShared).ok());
  // A small page that goes alone leaves its table where it is.
  ASSERT_TRUE(t.Fixes(50001, MemoryKind::kPrivate));
  ASSERT_EQ(t.LevelOf(50001, MemoryKind::kPrivate), Level::k4K);
  ASSERT_TRUE(t.space->Zap(Frames(50001, 1)).ok());
  const AttributeChange back{.ranges = ranges, .kind = MemoryKind::kPrivate};
  const auto plan = t.space->PlanMemoryAttributes(back);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const AddressSpaceStats before = t.space->stats();
  const auto done = t.space->SetMemoryAttributes(back);
  ASSERT_TRUE(done.ok()) << done.status();
  ExpectDone(*plan, *done, before, t.space->stats());
  EXPECT_EQ(t.space->stats().leaves[0][2], 0u);
  ASSERT_TRUE(t.Fixes(5, MemoryKind::kPrivate));
  EXPECT_EQ(t.LevelOf(5, MemoryKind::kPrivate), Level::k1G);
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
}

TEST(AttributePlanErrorTest, A1GLeafIsPlannedAlongItsEnds) {
  TestSpace t({.frames = 1 << 18});
  ASSERT_TRUE(t.Fixes(0, MemoryKind::kPrivate));
  const auto plan =
      t.space->PlanMemoryAttributes({.ranges = {Frames(700, 1348)}, .kind = MemoryKind::kShared});
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->tables_needed, 2u);
  EXPECT_EQ(plan->split.leaves[0][2], 1u);
  EXPECT_EQ(plan->split.leaves[0][1], 1u);
  EXPECT_EQ(plan->zapped.leaves[0][0], 1024u - 700u);
  EXPECT_EQ(plan->zapped.leaves[0][1], 2u);
  EXPECT_EQ(plan->flushes[0][0], 1u);
  EXPECT_EQ(plan->flushes[1][0], 0u);
}

}  // namespace
}  // namespace twinroot::mmu
