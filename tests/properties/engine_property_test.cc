// The engine agrees with the model under random operations, seen by a guest that asks for
// translations and by one that runs on the processor's walker and stale TLBs.
//
// The seed is printed; TWINROOT_TEST_SEED replays it. A difference is shrunk before it is shown.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "tests/model/memory_model.h"
#include "tests/properties/engine_operations.h"
#include "tests/properties/guest.h"

namespace twinroot::mmu {
namespace {

constexpr uint64_t kFrames = 1300;  // two large pages and a tail
constexpr uint64_t kGib = FramesPerEntry(Level::k1G);
constexpr size_t kOperations = 3000;  // in one life of a VM
// Over all arrangements. A billion for a night: TWINROOT_TEST_OPERATIONS=1000000000.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kUsualOperations = 100'000;
#else
constexpr uint64_t kUsualOperations = 1'000'000;
#endif
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
    case Operation::Type::kWrite:
    case Operation::Type::kFetch: {
      const Gfn gfn = op.range().first;
      const bool write = op.type == Operation::Type::kWrite;
      const bool fetch = op.type == Operation::Type::kFetch;
      const Touch touch = guest.Make(op.vcpu, {.gfn = gfn,
                                               .alias = op.kind(),
                                               .needed = write   ? Access::Write()
                                                         : fetch ? Access::Fetch()
                                                                 : Access::Read(),
                                               .execute_only = op.execute_only,
                                               .value = op.value});
      const bool denied = op.execute_only && !fetch;  // A10
      if (write && !denied) model.Write(gfn, op.kind(), op.value);
      std::optional<uint64_t> expected = model.Read(gfn, op.kind());
      if (denied) expected = std::nullopt;
      if (fetch && expected) *expected &= 0xFF;
      if (const auto* broken = std::get_if<Broken>(&touch)) return broken->what;
      if (const auto* touched = std::get_if<Touched>(&touch)) {
        if (!expected) return "an access that is forbidden went through";
        if (*expected != touched->value) {
          return "read " + std::to_string(touched->value) + " instead of " +
                 std::to_string(*expected);
        }
      } else if (expected) {
        return "an access that is allowed was refused";
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
    case Operation::Type::kSplit:
      // Sizes of pages are nothing that a guest sees.
      return compare(model.Zap(op.range()), space.SplitPages(op.range(), Level::k4K).status());
    case Operation::Type::kRecover:
      return compare(model.Zap(op.range()), space.RecoverPages(op.range()).status());
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
    const auto frames = [](const uint64_t(&leaves)[3]) {
      return leaves[0] + 512 * leaves[1] + kGib * leaves[2];
    };
    const uint64_t mapped[] = {frames(stats.leaves[0]), frames(stats.leaves[1])};
    if (mapped[0] != t.external_private.frames() || mapped[1] != t.external_shared.frames()) {
      return "an external table holds other leaves than the engine";
    }
  }
  // Content that no access reads: nothing of the other kind is left anywhere.
  bool outlived = false;
  for (const MemoryKind kind : kAllKinds) {
    t.pages.ForEachTouched(kind, [&](uint64_t gfn) {
      if (model.KindOf(Gfn(gfn)) != kind && t.pages.Mark(Gfn(gfn), kind) != 0) outlived = true;
    });
  }
  if (outlived) return "content outlived its conversion";
  return std::nullopt;
}

RunOperations Against(const MakeGuest& make) {
  return [make](const std::vector<Operation>& operations) -> std::optional<std::string> {
    const std::unique_ptr<Guest> guest = make();
    guest->t().log.Mute();
    if (!guest->t().create_status.ok()) return guest->t().create_status.ToString();
    MemoryModel model(guest->t().options.frames);
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

  // Of the operations; those on GiB take longer.
  uint64_t shares() const { return options.frames > kGib ? 1 : 3; }
};

TestSpaceOptions Large() {
  TestSpaceOptions options;
  options.frames = kFrames;
  return options;
}
TestSpaceOptions Small() {
  TestSpaceOptions options = Large();
  options.max_level = Level::k4K;
  return options;
}
TestSpaceOptions External() {
  TestSpaceOptions options = Large();
  options.external = true;
  return options;
}
TestSpaceOptions SharedBit(int bit, int walk_bits) {
  TestSpaceOptions options = Large();
  options.shared_bit = bit;
  options.walk_bits = walk_bits;
  options.guest_maxphyaddr = std::min(bit, 46);
  return options;
}
TestSpaceOptions OneRoot(TestSpaceOptions options) {
  options.arrangement = RootArrangement::kOneRoot;
  return options;
}
TestSpaceOptions ExecuteOnlyAlias(TestSpaceOptions options) {
  options.execute_only_bit = 47;
  options.pool_pages = 128;
  return options;
}
TestSpaceOptions OneGig() {
  TestSpaceOptions options;
  options.frames = 2 * kGib + kGib / 2 + 77;
  // All of it in 4K through both roots: splits never use up what a fault needs.
  options.pool_pages = 2 * (options.frames / 512 + 8);
  return options;
}

const std::vector<Arrangement>& Arrangements() {
  static const auto* const arrangements = new std::vector<Arrangement>{
      {"Large", false, Large()},
      {"Small", false, Small()},
      {"External", false, External()},
      {"ExternalOneRoot", false, OneRoot(External())},
      {"OneRoot", false, OneRoot(Large())},
      {"LowSharedBit", false, SharedBit(36, 48)},
      {"OneGig", false, OneGig()},
      {"ProcessorLarge", true, Large()},
      {"ProcessorSmall", true, Small()},
      {"ProcessorFiveLevels", true, SharedBit(51, 57)},
      {"ProcessorOneRoot", true, OneRoot(Large())},
      {"ProcessorExecuteOnlyAlias", true, ExecuteOnlyAlias(Large())},
      {"ProcessorExecuteOnlyAliasOneRoot", true, ExecuteOnlyAlias(OneRoot(Small()))},
      {"ProcessorOneGig", true, OneGig()},
      {"ProcessorOneGigOneRoot", true, OneRoot(OneGig())},
  };
  return *arrangements;
}

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
  uint64_t shares = 0;
  for (const Arrangement& other : Arrangements()) shares += other.shares();
  const uint64_t wanted = TestOperations(kUsualOperations) * a.shares() / shares + 1;
  uint64_t done = 0;
  for (; done < wanted; done += kOperations) {
    const std::vector<Operation> operations = RandomOperations(
        random, kOperations, a.options.frames, a.options.execute_only_bit.has_value());
    if (run(operations)) FAIL() << "seed " << seed << ": " << Explain(operations, run);
  }
  std::cout << done << " operations\n";
}

INSTANTIATE_TEST_SUITE_P(Arrangements, EnginePropertyTest, testing::ValuesIn(Arrangements()),
                         [](const auto& info) { return info.param.name; });

// The test above is only worth something if a missing flush makes it fail.
TEST(StaleTlbTest, AMissingFlushIsSeenAndShrinksToAFewOperations) {
  std::mt19937_64 random(TestSeed());
  const std::vector<Operation> operations = RandomOperations(random, kOperations, kFrames);
  const RunOperations run =
      Against([] { return std::make_unique<ProcessorGuest>(Large(), /*deaf=*/true); });
  ASSERT_TRUE(run(operations));
  const std::vector<Operation> fewest = Shrink(operations, run);
  EXPECT_TRUE(run(fewest));
  EXPECT_LE(fewest.size(), 4u);
}

}  // namespace
}  // namespace twinroot::mmu
