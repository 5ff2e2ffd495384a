// F3: what a harvest reports is exactly what was written since the last one, in every mode, under
// random operations; the guest runs on processors whose TLBs keep what nobody flushed.
//
// The seed is printed; TWINROOT_TEST_SEED replays it. A difference is shrunk before it is shown.
#include <gtest/gtest.h>

#include <functional>
#include <set>
#include <string>

#include "tests/fakes/processor_vm.h"
#include "tests/properties/dirty_log_operations.h"
#include "tests/properties/engine_operations.h"

namespace twinroot::mmu {
namespace {

constexpr uint64_t kFrames = 1300;  // two large pages and a tail
constexpr size_t kOperations = 1500;
constexpr size_t kAuditEvery = 100;

struct Arrangement {
  std::string name;
  DirtyLogOptions log;
  TestSpaceOptions space = {.frames = kFrames};
};

using Difference = std::optional<std::string>;

// The VM and the model of it.
class Run {
 public:
  explicit Run(const Arrangement& arrangement)
      : options_(arrangement.log), vm_(arrangement.space), kinds_(kFrames, MemoryKind::kPrivate) {}

  Difference Step(const LogOperation& op) {
    switch (op.type) {
      case LogOperation::Type::kWrite:
        return Touch(op, Access::Write());
      case LogOperation::Type::kRead:
        return Touch(op, Access::Read());
      case LogOperation::Type::kFetch:
        return Touch(op, Access::Fetch());
      case LogOperation::Type::kConvert:
        return Convert(op);
      case LogOperation::Type::kPunchHole:
        for (uint64_t i = 0; i < op.range.count; ++i) {
          if (KindOf(op.range.first + i) == op.kind) Dirty(op.range.first + i);
        }
        return Check(vm_.space().PunchHole(op.range, op.kind));
      case LogOperation::Type::kZap:
        return Check(vm_.space().Zap(op.range));
      case LogOperation::Type::kSplit:
        return Check(
            vm_.space().SplitPages(op.range, op.vcpu == 0 ? Level::k4K : Level::k2M).status());
      case LogOperation::Type::kRecover:
        return Check(vm_.space().RecoverPages(op.range).status());
      case LogOperation::Type::kAge:
        return Check(vm_.space().TestAndClearAccessed(op.range).status());
      case LogOperation::Type::kEnable:
        return Enable();
      case LogOperation::Type::kDisable:
        return Disable();
      case LogOperation::Type::kHarvest:
        return on_ ? Harvest(op) : std::nullopt;
      case LogOperation::Type::kClear:
        return on_ && options_.clear == DirtyClear::kManual ? Clear(op) : std::nullopt;
    }
    return "unknown operation";
  }

  Difference End() {
    if (on_) {
      if (Difference difference = Harvest({.range = Frames(0, kFrames)})) return difference;
    }
    return Check(vm_.space().Audit());
  }

 private:
  static Difference Check(const absl::Status& status) {
    return status.ok() ? std::nullopt : Difference(status.ToString());
  }
  MemoryKind KindOf(Gfn gfn) const { return kinds_[gfn.value]; }
  void Dirty(Gfn gfn) {
    if (on_) dirty_.insert(gfn.value);
  }

  Difference Touch(const LogOperation& op, Access access) {
    const Gfn gfn = op.range.first;
    while (true) {
      const ProcessorVm::Outcome outcome = vm_.Touch(op.vcpu, gfn, op.kind, access, op.value);
      if (const auto* broken = std::get_if<ProcessorVm::Broken>(&outcome)) return broken->what;
      if (std::holds_alternative<ProcessorVm::RingFull>(outcome)) {
        if (Difference difference = Harvest({.range = Frames(0, kFrames)})) return difference;
        continue;
      }
      const bool went = std::holds_alternative<ProcessorVm::Done>(outcome);
      if (went != (KindOf(gfn) == op.kind)) return "the attribute says otherwise";
      if (went && access.write()) Dirty(gfn);
      return std::nullopt;
    }
  }

  Difference Convert(const LogOperation& op) {
    const auto changed =
        vm_.space().SetMemoryAttributes({.ranges = {op.range}, .kind = op.kind, .content = {}});
    if (!changed.ok()) return changed.status().ToString();
    // The bytes are others now.
    for (const GfnRange& range : changed->converted) {
      vm_.space().MarkDirty(range);
      for (uint64_t i = 0; i < range.count; ++i) {
        kinds_[range.first.value + i] = op.kind;
        Dirty(range.first + i);
      }
    }
    return std::nullopt;
  }

  Difference Enable() {
    if (on_) return std::nullopt;
    if (Difference difference = Check(vm_.space().EnableDirtyLog(options_).status())) {
      return difference;
    }
    on_ = true;
    dirty_.clear();
    for (uint64_t i = 0; i < kFrames && options_.initially_all_set; ++i) dirty_.insert(i);
    return std::nullopt;
  }

  Difference Disable() {
    if (!on_) return std::nullopt;
    on_ = false;
    return Check(vm_.space().DisableDirtyLog().status());
  }

  // The pages of the range, from the bitmap and all rings.
  absl::StatusOr<std::set<uint64_t>> Reported(GfnRange range) {
    std::set<uint64_t> reported;
    for (uint32_t vcpu = 0; options_.ring_entries != 0 && vcpu < options_.ring_vcpus; ++vcpu) {
      while (true) {
        const auto taken = vm_.space().HarvestDirtyRing(vcpu, 7);
        if (!taken.ok()) return taken.status();
        if (taken->empty()) break;
        for (const Gfn gfn : *taken) reported.insert(gfn.value);
      }
    }
    const auto pages = vm_.space().HarvestDirty(range);
    if (!pages.ok()) return pages.status();
    for (uint64_t i = 0; i < 64 * pages->words.size(); ++i) {
      if (pages->words[i / 64] >> i % 64 & 1) reported.insert(range.first.value + i);
    }
    return reported;
  }

  Difference Harvest(const LogOperation& op) {
    // Rings know no ranges.
    const Gfn first =
        options_.ring_entries != 0 ? Gfn(0) : op.range.first - op.range.first.value % 64;
    const GfnRange range{first, options_.ring_entries != 0 ? kFrames : op.range.end() - first};
    const auto reported = Reported(range);
    if (!reported.ok()) return reported.status().ToString();
    const std::set<uint64_t> expected(dirty_.lower_bound(range.first.value),
                                      dirty_.lower_bound(range.end().value));
    for (const uint64_t gfn : expected) {
      if (!reported->contains(gfn)) return "page " + std::to_string(gfn) + " is lost";
    }
    for (const uint64_t gfn : *reported) {
      if (!expected.contains(gfn)) return "page " + std::to_string(gfn) + " is clean";
    }
    if (options_.clear == DirtyClear::kAtHarvest) {
      for (const uint64_t gfn : expected) dirty_.erase(gfn);
    }
    return std::nullopt;
  }

  // A harvest, a write between, and a clear of some words of it.
  Difference Clear(const LogOperation& op) {
    if (Difference difference = Harvest({.range = Frames(0, kFrames)})) return difference;
    auto pages = vm_.space().HarvestDirty(Frames(0, kFrames));
    if (!pages.ok()) return pages.status().ToString();
    if (Difference difference = Touch(op, Access::Write())) return difference;
    uint64_t random = op.value;
    for (uint64_t k = 0; k < pages->words.size(); ++k) {
      random = random * 6364136223846793005u + 1442695040888963407u;
      if (random >> 63 != 0) pages->words[k] = 0;
      for (uint64_t left = pages->words[k]; left != 0; left &= left - 1) {
        dirty_.erase(64 * k + static_cast<uint64_t>(std::countr_zero(left)));
      }
    }
    return Check(vm_.space().ClearDirty(*pages));
  }

  const DirtyLogOptions options_;
  ProcessorVm vm_;
  bool on_ = false;
  std::vector<MemoryKind> kinds_;
  std::set<uint64_t> dirty_;  // written since the last harvest, or clear
};

Difference RunAll(const Arrangement& arrangement, const std::vector<LogOperation>& operations) {
  Run run(arrangement);
  size_t done = 0;
  for (const LogOperation& op : operations) {
    if (Difference difference = run.Step(op)) return op.Text() + ": " + *difference;
    if (++done % kAuditEvery == 0) {
      if (Difference difference = run.End()) return difference;
    }
  }
  return run.End();
}

class DirtyLogPropertyTest : public testing::TestWithParam<Arrangement> {};

TEST_P(DirtyLogPropertyTest, F3_AHarvestReportsExactlyWhatWasWritten) {
  const uint64_t seed = TestSeed();
  RecordProperty("seed", std::to_string(seed));
  std::cout << "TWINROOT_TEST_SEED=" << seed << "\n";
  std::mt19937_64 random(seed);
  const auto run = [](const std::vector<LogOperation>& operations) {
    return RunAll(GetParam(), operations);
  };
  for (int round = 0; round < 3; ++round) {
    const auto operations = RandomLogOperations(random, kOperations, kFrames);
    if (run(operations)) FAIL() << "seed " << seed << ": " << Explain(operations, run);
  }
}

constexpr auto kWp = DirtyLogMode::kWriteProtect;
constexpr auto kD = DirtyLogMode::kDirtyBit;
constexpr auto kPml = DirtyLogMode::kPml;
constexpr auto kManual = DirtyClear::kManual;

INSTANTIATE_TEST_SUITE_P(
    Modes, DirtyLogPropertyTest,
    testing::Values(
        Arrangement{"WriteProtect", {.mode = kWp}},
        Arrangement{"WriteProtectLazy", {.mode = kWp, .eager_split = false}},
        Arrangement{"WriteProtectManual", {.mode = kWp, .clear = kManual}},
        Arrangement{"WriteProtectAllSet",
                    {.mode = kWp, .clear = kManual, .initially_all_set = true}},
        Arrangement{
            "WriteProtectAllSetLazy",
            {.mode = kWp, .clear = kManual, .initially_all_set = true, .eager_split = false}},
        Arrangement{"Rings", {.mode = kWp, .ring_entries = 200, .ring_vcpus = 2}},
        Arrangement{"DirtyBit", {.mode = kD}},
        Arrangement{"DirtyBitLazy", {.mode = kD, .eager_split = false}},
        Arrangement{"DirtyBitManual", {.mode = kD, .clear = kManual}},
        Arrangement{
            "DirtyBitAllSetLazy",
            {.mode = kD, .clear = kManual, .initially_all_set = true, .eager_split = false}},
        Arrangement{"Pml", {.mode = kPml}},
        Arrangement{"PmlLazy", {.mode = kPml, .eager_split = false}},
        Arrangement{"PmlManual", {.mode = kPml, .clear = kManual}},
        Arrangement{
            "PmlAllSetLazy",
            {.mode = kPml, .clear = kManual, .initially_all_set = true, .eager_split = false}},
        Arrangement{
            "LowSharedBitInOneRoot",
            {.mode = kWp},
            {.shared_bit = 36, .arrangement = RootArrangement::kOneRoot, .frames = kFrames}},
        Arrangement{"ExecuteOnlyAliasAndNxHugePages",
                    {.mode = kWp},
                    {.guest_maxphyaddr = 44,
                     .execute_only_bit = 45,
                     .frames = kFrames,
                     .nx_huge_pages = true}},
        Arrangement{"WithoutAccessedFlags",
                    {.mode = kWp},
                    {.capabilities = {.accessed_dirty = false}, .frames = kFrames}}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace twinroot::mmu
