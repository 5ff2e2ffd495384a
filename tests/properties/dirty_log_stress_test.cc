// F3 under races: a migration that copies what harvests report ends with the very bytes of the
// guest, in every mode, while vCPUs write and pages are converted, zapped, split, merged and aged.
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/fakes/processor_vm.h"
#include "tests/properties/dirty_log_operations.h"
#include "tests/properties/engine_operations.h"

namespace twinroot::mmu {
namespace {

constexpr uint64_t kFrames = 1100;
constexpr uint64_t kHot = 24;  // pages that all vCPUs write all the time
constexpr uint32_t kWriters = 3;
constexpr int kWrites = 20000;  // of each vCPU

struct Mode {
  std::string name;
  DirtyLogOptions log;
  TestSpaceOptions space = {.frames = kFrames};
};

class Migration {
 public:
  explicit Migration(const Mode& mode)
      : options_(mode.log), vm_(mode.space, kWriters), target_(kFrames), reported_(kFrames) {}

  std::string Run(uint64_t seed) {
    // What is mapped large at the start is split under way.
    for (uint64_t gfn = 0; gfn < kFrames; gfn += 512) {
      vm_.Write(0, gfn, MemoryKind::kPrivate, 1);
    }
    if (const auto on = vm_.space().EnableDirtyLog(options_); !on.ok()) {
      return on.status().ToString();
    }
    for (uint64_t gfn = 0; gfn < kFrames; ++gfn) Copy(gfn);
    std::vector<std::thread> writers;
    for (uint32_t vcpu = 0; vcpu < kWriters; ++vcpu) {
      writers.emplace_back([this, vcpu, seed] { Write(vcpu, seed); });
    }
    std::thread harvester([this] {
      while (!stopped_) Harvest();
    });
    std::thread changer([this, seed] { Change(seed); });
    for (std::thread& writer : writers) writer.join();
    stopped_ = true;
    changer.join();
    harvester.join();
    Harvest();
    Compare();
    if (const absl::Status audit = vm_.space().Audit(); !audit.ok()) Fail(audit.ToString());
    return failure_;
  }

 private:
  void Fail(const std::string& what) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (failure_.empty()) failure_ = what;
  }

  void Write(uint32_t vcpu, uint64_t seed) {
    std::mt19937_64 random(seed + vcpu);
    for (uint64_t version = 1; version <= kWrites;) {
      const uint64_t gfn = random() % 4 == 0 ? random() % kFrames : random() % kHot * 45;
      const auto kind = static_cast<MemoryKind>(random() % 8 == 0);
      const auto outcome = vm_.Write(vcpu, gfn, kind, version << 8 | vcpu);
      if (const auto* broken = std::get_if<ProcessorVm::Broken>(&outcome)) {
        Fail(broken->what);
        return;
      }
      if (std::holds_alternative<ProcessorVm::RingFull>(outcome)) {
        std::this_thread::yield();
        continue;
      }
      ++version;
    }
  }

  void Change(uint64_t seed) {
    std::mt19937_64 random(seed + 100);
    while (!stopped_) {
      const GfnRange range = RandomRange(random, kFrames);
      switch (random() % 8) {
        case 0: {
          const std::lock_guard<std::mutex> lock(content_);
          const auto changed =
              vm_.space().SetMemoryAttributes({.ranges = {range},
                                               .kind = static_cast<MemoryKind>(random() % 4 == 0),
                                               .content = Content::kDestroy});
          if (!changed.ok()) return Fail(changed.status().ToString());
          for (const GfnRange& converted : changed->converted) vm_.space().MarkDirty(converted);
          break;
        }
        case 1:
          Check(vm_.space().Zap(range));
          break;
        case 2:
          Check(vm_.space().SplitPages(range, Level::k4K).status());
          break;
        case 3:
          Check(vm_.space().RecoverPages(range).status());
          break;
        case 4:
          Check(vm_.space().TestAndClearAccessed(range).status());
          break;
        default:
          std::this_thread::sleep_for(std::chrono::microseconds(200));
      }
    }
  }

  void Check(const absl::Status& status) {
    if (!status.ok()) Fail(status.ToString());
  }

  // All words, as they stand at one moment between two conversions.
  std::vector<uint64_t> Snapshot() {
    const std::lock_guard<std::mutex> lock(content_);
    std::vector<uint64_t> words;
    for (const AttributeRun& run : vm_.space().GetMemoryAttributes()) {
      for (uint64_t i = 0; i < run.range.count; ++i)
        words.push_back(Word(run.range.first + i, run.kind));
    }
    return words;
  }

  // What was there when the harvest began is reported, now or before.
  void Harvest() {
    const std::vector<uint64_t> before = Snapshot();
    reported_.assign(kFrames, false);
    HarvestAndCopy();
    for (uint64_t gfn = 0; gfn < kFrames; ++gfn) {
      if (reported_[gfn] || target_[gfn] == before[gfn]) continue;
      Fail("a write to page " + std::to_string(gfn) + " was over and is not reported");
    }
  }

  void HarvestAndCopy() {
    for (uint32_t vcpu = 0; options_.ring_entries != 0 && vcpu < kWriters; ++vcpu) {
      while (true) {
        const auto taken = vm_.space().HarvestDirtyRing(vcpu, 50);
        if (!taken.ok()) return Fail(taken.status().ToString());
        if (taken->empty()) break;
        for (const Gfn gfn : *taken) Copy(gfn.value);
      }
    }
    const auto pages = vm_.space().HarvestDirty(Frames(0, kFrames));
    if (!pages.ok()) return Fail(pages.status().ToString());
    if (options_.clear == DirtyClear::kManual) Check(vm_.space().ClearDirty(*pages));
    for (uint64_t gfn = 0; gfn < kFrames; ++gfn) {
      if (pages->words[gfn / 64] >> gfn % 64 & 1) Copy(gfn);
    }
  }

  MemoryKind KindOf(uint64_t gfn) {
    const auto runs = vm_.space().GetMemoryAttributes(Frames(gfn, 1));
    return runs->front().kind;
  }
  uint64_t Word(Gfn gfn, MemoryKind kind) {
    return std::atomic_ref<uint64_t>(vm_.t().pages.Mark(gfn, kind)).load(std::memory_order_acquire);
  }
  uint64_t Memory(uint64_t gfn) { return Word(Gfn(gfn), KindOf(gfn)); }
  void Copy(uint64_t gfn) {
    // Not while its bytes are discarded; the conversion makes it dirty again.
    const std::lock_guard<std::mutex> lock(content_);
    target_[gfn] = Memory(gfn);
    reported_[gfn] = true;
  }
  void Compare() {
    for (uint64_t gfn = 0; gfn < kFrames; ++gfn) {
      if (Memory(gfn) == target_[gfn]) continue;
      return Fail("page " + std::to_string(gfn) + " was lost: " + std::to_string(target_[gfn]) +
                  " instead of " + std::to_string(Memory(gfn)));
    }
  }

  const DirtyLogOptions options_;
  ProcessorVm vm_;
  std::vector<uint64_t> target_;
  std::vector<bool> reported_;  // by the harvest under way
  std::atomic<bool> stopped_{false};
  std::mutex content_;
  std::mutex mutex_;
  std::string failure_;
};

class DirtyLogStressTest : public testing::TestWithParam<Mode> {};

TEST_P(DirtyLogStressTest, F3_NoPageIsLostUnderAnyRace) {
  const uint64_t seed = TestSeed();
  RecordProperty("seed", std::to_string(seed));
  std::cout << "TWINROOT_TEST_SEED=" << seed << "\n";
  EXPECT_EQ(Migration(GetParam()).Run(seed), "") << "seed " << seed;
}

constexpr auto kWp = DirtyLogMode::kWriteProtect;
constexpr auto kD = DirtyLogMode::kDirtyBit;
constexpr auto kPml = DirtyLogMode::kPml;
constexpr auto kManual = DirtyClear::kManual;

INSTANTIATE_TEST_SUITE_P(
    Modes, DirtyLogStressTest,
    testing::Values(
        Mode{"WriteProtect", {.mode = kWp}},
        Mode{"WriteProtectLazy", {.mode = kWp, .eager_split = false}},
        Mode{"WriteProtectManual", {.mode = kWp, .clear = kManual}},
        Mode{"WriteProtectAllSet", {.mode = kWp, .clear = kManual, .initially_all_set = true}},
        Mode{"Rings", {.mode = kWp, .ring_entries = 160, .ring_vcpus = kWriters}},
        Mode{"DirtyBit", {.mode = kD}}, Mode{"DirtyBitManual", {.mode = kD, .clear = kManual}},
        Mode{"DirtyBitAllSetLazy",
             {.mode = kD, .clear = kManual, .initially_all_set = true, .eager_split = false}},
        Mode{"Pml", {.mode = kPml}}, Mode{"PmlManual", {.mode = kPml, .clear = kManual}},
        Mode{"PmlLazy", {.mode = kPml, .eager_split = false}},
        Mode{"WithoutAccessedFlags",
             {.mode = kWp},
             {.capabilities = {.accessed_dirty = false}, .frames = kFrames}}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace twinroot::mmu
