// A11: where the shared bit leads, to a root of its own or to another part of the one root, makes
// no difference that is seen by frame: the same operations leave the same attributes, the same
// leaves and the same answers.
#include <gtest/gtest.h>

#include <iostream>
#include <random>
#include <string>

#include "tests/fakes/test_space.h"
#include "tests/properties/engine_operations.h"

namespace twinroot::mmu {
namespace {

constexpr uint64_t kFrames = 1300;

std::string Answer(TestSpace& t, const Operation& op) {
  switch (op.type) {
    case Operation::Type::kRead:
    case Operation::Type::kWrite:
    case Operation::Type::kFetch: {
      const Access access = op.type == Operation::Type::kRead    ? Access::Read()
                            : op.type == Operation::Type::kWrite ? Access::Write()
                                                                 : Access::Fetch();
      const uint64_t gfn = op.range().first.value;
      const FaultOutcome outcome = op.execute_only ? t.TouchExecuteOnly(gfn, op.kind(), access)
                                                   : t.Touch(gfn, op.kind(), access);
      std::string text = std::to_string(outcome.index());
      if (const auto* fixed = std::get_if<Fixed>(&outcome)) {
        text += " level " + std::to_string(static_cast<int>(fixed->level));
      }
      if (const auto* exit = std::get_if<MemoryFaultExit>(&outcome)) {
        text += " denied " + std::to_string(exit->denied.bits());
      }
      return text;
    }
    case Operation::Type::kConvert:
      return t.space->SetMemoryAttributes(op.change).status().ToString();
    case Operation::Type::kZap:
      return t.space->Zap(op.range()).ToString();
    case Operation::Type::kPunchHole:
      return t.space->PunchHole(op.range(), op.kind()).ToString();
    case Operation::Type::kSplit: {
      const auto split = t.space->SplitPages(op.range(), Level::k4K);
      if (!split.ok()) return split.status().ToString();
      return "split " + std::to_string(split->split_2m) + ", kept " + std::to_string(split->kept);
    }
    case Operation::Type::kRecover: {
      const auto recovered = t.space->RecoverPages(op.range());
      if (!recovered.ok()) return recovered.status().ToString();
      return "recovered " + std::to_string(recovered->collapsed);
    }
  }
  return "unknown";
}

std::string State(TestSpace& t) {
  std::string text = t.space->Audit().ToString();
  for (const AttributeRun& run : t.space->GetMemoryAttributes()) {
    text += " " + CallText("run", run.kind, run.range.first.value, run.range.count);
  }
  for (uint64_t gfn = 0; gfn < kFrames; ++gfn) {
    for (const MemoryKind kind : kAllKinds) {
      for (const bool execute_only : {false, true}) {
        const auto walk = t.space->Translate(Gpa(gfn << kPageShift), kind, execute_only);
        if (!walk->mapped) continue;
        text += "\n" + CallText("leaf", kind, gfn, FramesPerEntry(walk->level)) + " " +
                std::to_string(walk->hpa.value) + " " + std::to_string(walk->access.bits());
      }
    }
  }
  const AddressSpaceStats stats = t.space->stats();
  for (const auto& leaves : stats.leaves) {
    for (const uint64_t count : leaves) text += " " + std::to_string(count);
  }
  return text;
}

class RootArrangementTest : public testing::TestWithParam<bool> {};

TEST_P(RootArrangementTest, A11_OneRootAndTwoRootsGiveTheSameStateUnderTheSameOperations) {
  const uint64_t seed = TestSeed();
  std::cout << "TWINROOT_TEST_SEED=" << seed << "\n";
  std::mt19937_64 random(seed);
  for (int life = 0; life < 5; ++life) {
    TestSpaceOptions options;
    options.frames = kFrames;
    options.external = GetParam();
    options.execute_only_bit = 47;
    options.pool_pages = 256;
    TestSpace two(options);
    options.arrangement = RootArrangement::kOneRoot;
    TestSpace one(options);
    ASSERT_TRUE(one.create_status.ok()) << one.create_status;
    int done = 0;
    for (const Operation& op : RandomOperations(random, 600, kFrames, /*execute_only=*/true)) {
      ASSERT_EQ(Answer(one, op), Answer(two, op)) << "seed " << seed << ": " << op.Text();
      if (++done % 50 == 0) {
        ASSERT_EQ(State(one), State(two)) << "seed " << seed << ": after " << op.Text();
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Roots, RootArrangementTest, testing::Bool(), [](const auto& info) {
  return info.param ? "WithExternalTables" : "Walked";
});

}  // namespace
}  // namespace twinroot::mmu
