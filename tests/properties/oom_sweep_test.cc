// Every operation with 1, 2, 3 ... table pages until it succeeds, and with every reservation that
// it makes failing once. After each failure nothing has changed, nothing is lost, and the audit is
// clean: attributes, translations and content are compared word by word.
#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/fakes/test_space.h"

namespace twinroot::mmu {
namespace {

constexpr auto kPrivate = MemoryKind::kPrivate;
constexpr auto kShared = MemoryKind::kShared;
constexpr uint64_t kFrames = 3 * 512;

// All that anybody can see: attributes, translations, content. Empty tables are nobody's business.
std::string Snapshot(TestSpace& t) {
  std::string text;
  for (const AttributeRun& run : t.space->GetMemoryAttributes()) {
    text += CallText("run", run.kind, run.range.first.value, run.range.count) + "\n";
  }
  for (uint64_t gfn = 0; gfn < kFrames; ++gfn) {
    for (const MemoryKind kind : kAllKinds) {
      const auto walk = t.space->Translate(Gpa(gfn << kPageShift), kind);
      if (walk.ok() && walk->mapped) {
        text += CallText("leaf", kind, gfn, FramesPerEntry(walk->level)) + " " +
                std::to_string(walk->hpa.value) + " " + std::to_string(walk->access.bits()) + "\n";
      }
    }
  }
  for (const MemoryKind kind : kAllKinds) {
    t.pages.ForEachTouched(kind, [&](uint64_t gfn) {
      if (const uint64_t mark = t.pages.Mark(Gfn(gfn), kind)) {
        text += CallText("holds", kind, gfn, mark) + "\n";
      }
    });
  }
  return text;
}

struct Operation {
  std::string name;
  std::function<absl::Status(TestSpace&)> run;
  // What stands before it; may itself lack pages.
  std::function<absl::Status(TestSpace&)> prepare;
  TestSpaceOptions options;
};

absl::Status Touch(TestSpace& t, uint64_t gfn, MemoryKind kind) {
  const FaultOutcome outcome = t.Touch(gfn, kind);
  if (const auto* failed = std::get_if<Failed>(&outcome)) return failed->status;
  if (std::holds_alternative<Fixed>(outcome)) {
    t.pages.Mark(Gfn(gfn), kind) = gfn + 1;
    return absl::OkStatus();
  }
  return absl::InternalError("outcome " + std::to_string(outcome.index()));
}

// Private pages 0, 600 and 1100 mapped and written, 700 shared, mapped and written.
absl::Status Populate(TestSpace& t) {
  if (absl::Status s = t.Convert({Frames(700, 2)}, kShared).status(); !s.ok()) return s;
  for (const auto& [gfn, kind] :
       {std::pair{0, kPrivate}, {600, kPrivate}, {1100, kPrivate}, {700, kShared}}) {
    if (absl::Status s = Touch(t, static_cast<uint64_t>(gfn), kind); !s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status Nothing(TestSpace&) { return absl::OkStatus(); }

TestSpaceOptions Options(Level level, int walk_bits = 48,
                         RootArrangement arrangement = RootArrangement::kTwoRoots) {
  TestSpaceOptions options;
  options.frames = kFrames;
  options.max_level = level;
  options.walk_bits = walk_bits;
  options.arrangement = arrangement;
  return options;
}

std::vector<Operation> Operations() {
  const auto convert = [](std::vector<GfnRange> ranges, MemoryKind kind, Content content) {
    return [ranges = std::move(ranges), kind, content](TestSpace& t) {
      return t.Convert(ranges, kind, content, Requester::kGuest).status();
    };
  };
  const auto fault = [](uint64_t gfn, MemoryKind kind) {
    return [gfn, kind](TestSpace& t) { return Touch(t, gfn, kind); };
  };
  const auto split = [](TestSpace& t) {
    const auto result = t.space->SplitPages(Frames(0, kFrames), Level::k4K);
    if (!result.ok()) return result.status();
    // Best effort (B9): what found no table stays large.
    return result->kept == 0 ? absl::OkStatus() : absl::ResourceExhaustedError("kept");
  };
  return {
      {"Map4K", fault(5, kPrivate), Nothing, Options(Level::k4K)},
      {"Map2M", fault(5, kPrivate), Nothing, Options(Level::k2M)},
      {"MapFiveLevels", fault(5, kPrivate), Nothing, Options(Level::k4K, 57)},
      {"MapOneRoot", fault(5, kPrivate), Nothing,
       Options(Level::k4K, 48, RootArrangement::kOneRoot)},
      {"MapShared", fault(701, kShared), Populate, Options(Level::k4K)},
      {"MapBesideALeaf", fault(1101, kPrivate), Populate, Options(Level::k4K)},
      {"Convert", convert({Frames(500, 200)}, kShared, Content::kDestroy), Populate,
       Options(Level::k2M)},
      {"ConvertPreserve",
       convert({Frames(0, 1), Frames(590, 20), Frames(1100, 1)}, kShared, Content::kPreserve),
       Populate, Options(Level::k2M)},
      {"ConvertBack", convert({Frames(600, 200)}, kPrivate, Content::kPreserve), Populate,
       Options(Level::k4K)},
      {"Zap", [](TestSpace& t) { return t.space->Zap(Frames(0, kFrames)); }, Populate,
       Options(Level::k4K)},
      {"PunchHole", [](TestSpace& t) { return t.space->PunchHole(Frames(0, 700), kPrivate); },
       Populate, Options(Level::k2M)},
      {"AddMemslot",
       [](TestSpace& t) {
         return t.space->AddMemslot(
             {.range = Frames(8192, 7), .private_pfn = Pfn(uint64_t{1} << 25), .shared_pfn = {}});
       },
       Populate, Options(Level::k4K)},
      {"Split", split, Populate, Options(Level::k2M)},
  };
}

class OomSweepTest : public testing::TestWithParam<Operation> {
 protected:
  // One try. Success of the operation, or nullopt if its preparation lacked pages.
  std::optional<bool> Try(TestSpace& t, const std::string& what) {
    SCOPED_TRACE(what);
    const Operation& op = GetParam();
    const std::string before = Snapshot(t);
    const bool splits = op.name == "Split";
    const absl::Status status = op.run(t);
    ExpectWhole(t);
    if (status.ok()) return true;
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
    EXPECT_EQ(t.space->bugged(), "");
    if (!splits) {
      EXPECT_EQ(Snapshot(t), before);
    }
    return false;
  }
  // Nothing lost, nothing half done.
  static void ExpectWhole(TestSpace& t) {
    const absl::Status audit = t.space->Audit();
    EXPECT_TRUE(audit.ok()) << audit;
    EXPECT_EQ(t.pool.stats().used, t.space->stats().table_pages) << "a table is lost";
  }
};

TEST_P(OomSweepTest, EveryTablePageMissesOnceAndNothingChanges) {
  const Operation& op = GetParam();
  bool succeeded = false;
  int failures = 0;
  for (size_t pages = 1; !succeeded; ++pages) {
    ASSERT_LT(pages, 64u) << "it never succeeds";
    TestSpaceOptions options = op.options;
    options.pool_pages = pages;
    TestSpace t(options);
    if (!t.create_status.ok()) {
      EXPECT_TRUE(absl::IsResourceExhausted(t.create_status)) << t.create_status;
      EXPECT_EQ(t.pool.stats().used, 0u);
      continue;
    }
    if (const absl::Status prepared = op.prepare(t); !prepared.ok()) {
      EXPECT_TRUE(absl::IsResourceExhausted(prepared)) << prepared;
      ExpectWhole(t);
      continue;
    }
    succeeded = *Try(t, std::to_string(pages) + " pages");
    failures += !succeeded;
    // Whatever happened, everything can be taken away, and every page comes back.
    ASSERT_TRUE(t.space->Zap(Frames(0, kFrames)).ok());
    ExpectWhole(t);
    while (t.space->ReclaimTables(64) != 0) {
    }
    const bool two = options.arrangement == RootArrangement::kTwoRoots;
    EXPECT_EQ(t.pool.stats().used, two ? 2u : 1u);
    t.space.reset();
    EXPECT_EQ(t.pool.stats().used, 0u);
  }
  RecordProperty("failures", failures);
  // What maps or splits cannot do without; what takes away needs no page (D4).
  const bool needs = op.name.rfind("Map", 0) == 0 || op.name == "Split";
  EXPECT_EQ(failures > 0, needs && op.name != "MapBesideALeaf" && op.name != "MapShared");
}

TEST_P(OomSweepTest, EveryReservationFailsOnceAndNothingChanges) {
  bool succeeded = false;
  for (int fail_in = 0; !succeeded; ++fail_in) {
    ASSERT_LT(fail_in, 16) << "it never succeeds";
    TestSpace t(GetParam().options);
    ASSERT_TRUE(GetParam().prepare(t).ok());
    const uint64_t allocated[] = {t.pages.allocated(kPrivate), t.pages.allocated(kShared)};
    t.pages.fail_reserve_in = fail_in;
    succeeded = *Try(t, "reservation " + std::to_string(fail_in));
    if (succeeded) {
      EXPECT_GE(t.pages.fail_reserve_in, 0) << "a failed reservation was ignored";
    } else {
      EXPECT_EQ(t.pages.allocated(kPrivate), allocated[0]);
      EXPECT_EQ(t.pages.allocated(kShared), allocated[1]);
    }
  }
}

TEST_P(OomSweepTest, APageThatCannotBeHadChangesNothing) {
  TestSpace t(GetParam().options);
  ASSERT_TRUE(GetParam().prepare(t).ok());
  t.pages.fail_resolve = absl::ResourceExhaustedError("no memory");
  const bool succeeded = *Try(t, "no page");
  EXPECT_EQ(succeeded, GetParam().name.rfind("Map", 0) != 0);
}

INSTANTIATE_TEST_SUITE_P(Operations, OomSweepTest, testing::ValuesIn(Operations()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace twinroot::mmu
