// The engine agrees with the model under random operations, seen by a guest that asks for
// translations and by one that runs on the processor's walker and stale TLBs.
//
// The seed is printed; TWINROOT_TEST_SEED replays it. A difference is shrunk before it is shown.
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>

#include "tests/model/memory_model.h"
#include "tests/properties/engine_operations.h"
#include "tests/properties/guest.h"

namespace twinroot::mmu {
namespace {

constexpr uint64_t kFrames = 1300;  // two large pages and a tail
constexpr size_t kOperations = 3000;
constexpr size_t kAuditEvery = 100;

using MakeGuest = std::function<std::unique_ptr<Guest>()>;

std::string Words(const std::vector<AttributeRun>& runs) {
  std::string words;
  for (const AttributeRun& run : runs) {
    words += NameOf(run.kind) + " " + std::to_string(run.range.first.value) + "+" +
             std::to_string(run.range.count) + ", ";
  }
  return words;
}

// One operation on both; what they disagree about.
std::optional<std::string> Step(const Operation& op, Guest& guest, MemoryModel& model) {
  GuestAddressSpace& space = *guest.t().space;
  const auto compare = [](absl::StatusCode expected,
                          const absl::Status& got) -> std::optional<std::string> {
    if (expected == got.code()) return std::nullopt;
    return "expected status " + absl::StatusCodeToString(expected) + ", got " + got.ToString();
  };
  switch (op.type) {
    case Operation::Type::kRead:
    case Operation::Type::kWrite: {
      const Gfn gfn = op.range().first;
      const bool write = op.type == Operation::Type::kWrite;
      const Touch touch = guest.Access(op.vcpu, gfn, op.kind(),
                                       write ? std::optional<uint64_t>(op.value) : std::nullopt);
      if (write) model.Write(gfn, op.kind(), op.value);
      const std::optional<uint64_t> expected = model.Read(gfn, op.kind());
      if (const auto* broken = std::get_if<Broken>(&touch)) return broken->what;
      if (const auto* touched = std::get_if<Touched>(&touch)) {
        if (!expected) return "an access that the attribute forbids went through";
        if (*expected != touched->value) {
          return "read " + std::to_string(touched->value) + " instead of " +
                 std::to_string(*expected);
        }
      } else if (expected) {
        return "an access that the attribute allows was refused";
      }
      return std::nullopt;
    }
    case Operation::Type::kConvert: {
      const auto expected = model.Convert(op.change);
      return compare(expected, space.SetMemoryAttributes(op.change).status());
    }
    case Operation::Type::kZap:
      return compare(model.Zap(op.range()), space.Zap(op.range()));
    case Operation::Type::kPunchHole:
      return compare(model.PunchHole(op.range(), op.kind()),
                     space.PunchHole(op.range(), op.kind()));
  }
  return "unknown operation";
}

std::optional<std::string> WholeState(Guest& guest, const MemoryModel& model) {
  TestSpace& t = guest.t();
  if (const absl::Status audit = t.space->Audit(); !audit.ok()) return audit.ToString();
  const std::string expected = Words(model.Runs());
  const std::string got = Words(t.space->GetMemoryAttributes());
  if (expected != got) return "attributes " + got + "expected " + expected;
  if (t.external_private.contradiction || t.external_shared.contradiction) {
    return "an external table got a leaf over another";
  }
  if (t.options.external) {
    const AddressSpaceStats stats = t.space->stats();
    const uint64_t mapped[] = {stats.leaves[0][0] + 512 * stats.leaves[0][1],
                               stats.leaves[1][0] + 512 * stats.leaves[1][1]};
    if (mapped[0] != t.external_private.frames() || mapped[1] != t.external_shared.frames()) {
      return "an external table holds other leaves than the engine";
    }
  }
  // Content that no access reads: nothing of the other kind is left anywhere.
  for (uint64_t gfn = 0; gfn < kFrames; ++gfn) {
    const MemoryKind dead = Other(model.KindOf(Gfn(gfn)));
    if (t.pages.Mark(Gfn(gfn), dead) != 0) return "content outlived its conversion";
  }
  return std::nullopt;
}

RunOperations Against(const MakeGuest& make) {
  return [make](const std::vector<Operation>& operations) -> std::optional<std::string> {
    const std::unique_ptr<Guest> guest = make();
    MemoryModel model(kFrames);
    size_t done = 0;
    for (const Operation& op : operations) {
      if (auto difference = Step(op, *guest, model)) return op.Text() + ": " + *difference;
      if (++done % kAuditEvery == 0) {
        if (auto difference = WholeState(*guest, model)) return difference;
      }
    }
    return WholeState(*guest, model);
  };
}

struct Arrangement {
  std::string name;
  bool processor;
  TestSpaceOptions options;
};

class EnginePropertyTest : public testing::TestWithParam<Arrangement> {};

TEST_P(EnginePropertyTest, AgreesWithTheModelUnderRandomOperations) {
  const uint64_t seed = TestSeed();
  RecordProperty("seed", std::to_string(seed));
  std::cout << "TWINROOT_TEST_SEED=" << seed << "\n";
  std::mt19937_64 random(seed);
  const Arrangement& a = GetParam();
  const RunOperations run = Against([&a]() -> std::unique_ptr<Guest> {
    if (a.processor) return std::make_unique<ProcessorGuest>(a.options, /*deaf=*/false);
    return std::make_unique<TranslatingGuest>(a.options);
  });
  for (int round = 0; round < 4; ++round) {
    const std::vector<Operation> operations = RandomOperations(random, kOperations, kFrames);
    if (run(operations)) FAIL() << "seed " << seed << ": " << Explain(operations, run);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Arrangements, EnginePropertyTest,
    testing::Values(
        Arrangement{"Large", false, {.frames = kFrames}},
        Arrangement{"Small", false, {.frames = kFrames, .max_level = Level::k4K}},
        Arrangement{"External", false, {.frames = kFrames, .external = true}},
        Arrangement{"LowSharedBit", false, {.shared_bit = 36, .frames = kFrames}},
        Arrangement{"ProcessorLarge", true, {.frames = kFrames}},
        Arrangement{"ProcessorSmall", true, {.frames = kFrames, .max_level = Level::k4K}},
        Arrangement{
            "ProcessorFiveLevels",
            true,
            {.shared_bit = 51, .walk_bits = 57, .guest_maxphyaddr = 51, .frames = kFrames}}),
    [](const auto& info) { return info.param.name; });

// The test above is only worth something if a missing flush makes it fail.
TEST(StaleTlbTest, AMissingFlushIsSeenAndShrinksToAFewOperations) {
  std::mt19937_64 random(TestSeed());
  const std::vector<Operation> operations = RandomOperations(random, kOperations, kFrames);
  const RunOperations run = Against([] {
    return std::make_unique<ProcessorGuest>(TestSpaceOptions{.frames = kFrames}, /*deaf=*/true);
  });
  ASSERT_TRUE(run(operations));
  const std::vector<Operation> fewest = Shrink(operations, run);
  EXPECT_TRUE(run(fewest));
  EXPECT_LE(fewest.size(), 4u);
}

}  // namespace
}  // namespace twinroot::mmu
