// vCPUs touch memory while other threads convert it, zap it, and read what is shared. Every page
// follows one rule that needs no model: a private page holds 0 or a private mark of its own
// number, a shared page 0 or a shared mark. A private mark seen through the shared alias is a leak;
// any other word is a page of somebody else.
//
// Runs under TSan: the bytes are touched as a processor would, with atomic words.
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/properties/engine_operations.h"
#include "tests/properties/guest.h"

namespace twinroot::mmu {
namespace {

constexpr uint64_t kFrames = 1100;
constexpr uint64_t kGib = FramesPerEntry(Level::k1G);
constexpr uint64_t kSharedMark = uint64_t{1} << 63;

uint64_t MarkOf(uint64_t gfn, MemoryKind kind) {
  return (gfn + 1) | (kind == MemoryKind::kShared ? kSharedMark : 0);
}

class Stress {
 public:
  explicit Stress(const TestSpaceOptions& options)
      : frames_(options.frames), guest_(options, /*deaf=*/false) {}

  // Among few pages, or nobody would meet.
  uint64_t PickGfn(std::mt19937_64& random) const {
    if (frames_ < kGib) return random() % frames_;
    static constexpr uint64_t kPlaces[] = {0, kGib - 512, kGib, 2 * kGib - 300};
    return kPlaces[random() % 4] + random() % 600;
  }

  void Vcpu(int vcpu, uint64_t seed) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < 4000 && !failed_; ++i) {
      const uint64_t gfn = PickGfn(random);
      const auto kind = static_cast<MemoryKind>(random() % 2);
      const uint64_t mark = MarkOf(gfn, kind);
      const bool write = random() % 2 == 0;
      const Touch touch =
          guest_.Access(vcpu, Gfn(gfn), kind, write ? std::optional<uint64_t>(mark) : std::nullopt);
      if (const auto* broken = std::get_if<Broken>(&touch)) Fail(broken->what);
      if (const auto* touched = std::get_if<Touched>(&touch)) {
        if (touched->value != 0 && touched->value != mark) {
          Fail("gfn " + std::to_string(gfn) + " read " + std::to_string(touched->value));
        }
      }
    }
    --running_;
  }

  void Convert(uint64_t seed) {
    std::mt19937_64 random(seed);
    while (running_ > 0 && !failed_) {
      const uint64_t first = PickGfn(random);
      const uint64_t most = random() % 16 == 0 ? frames_ : 600;
      const uint64_t count = std::min<uint64_t>(1 + random() % most, frames_ - first);
      const GfnRange range{Gfn(first), random() % 2 == 0 ? 1 : count};
      GuestAddressSpace& space = *guest_.t().space;
      const uint64_t dice = random() % 16;
      const absl::Status status =
          dice < 2   ? space.Zap(range)
          : dice < 3 ? space.SplitPages(range, Level::k4K).status()
          : dice < 4 ? space.RecoverPages(range).status()
                     : space
                           .SetMemoryAttributes({.ranges = {range},
                                                 .kind = static_cast<MemoryKind>(random() % 2),
                                                 .content = Content::kDestroy,
                                                 .requester = Requester::kGuest})
                           .status();
      if (!status.ok()) Fail(status.ToString());
    }
  }

  void ReadShared(uint64_t seed) {
    std::mt19937_64 random(seed);
    while (running_ > 0 && !failed_) {
      const uint64_t gfn = PickGfn(random);
      const absl::Status status = guest_.t().space->WithSharedPages({Gfn(gfn), 1}, [&] {
        const uint64_t word =
            std::atomic_ref<uint64_t>(guest_.t().pages.Mark(Gfn(gfn), MemoryKind::kShared))
                .load(std::memory_order_relaxed);
        if (word != 0 && word != MarkOf(gfn, MemoryKind::kShared)) Fail("host read a leak");
      });
      if (!status.ok() && !absl::IsPermissionDenied(status)) Fail(status.ToString());
    }
  }

  // Maps without a vCPU, as a prefault does, and looks at what stands.
  void Prefault(uint64_t seed) {
    std::mt19937_64 random(seed);
    while (running_ > 0 && !failed_) {
      const uint64_t gfn = PickGfn(random);
      const auto kind = static_cast<MemoryKind>(random() % 2);
      const FaultOutcome outcome = guest_.t().Touch(gfn, kind);
      if (const auto* failed = std::get_if<Failed>(&outcome)) Fail(failed->status.ToString());
      if (std::holds_alternative<Mmio>(outcome)) Fail("MMIO inside the slot");
      const auto walk = guest_.t().space->Translate(Gpa(gfn << kPageShift), kind);
      if (!walk.ok()) {
        Fail(walk.status().ToString());
      } else if (walk->mapped && walk->hpa != HpaOf(guest_.t().pages.PfnOf(Gfn(gfn), kind))) {
        Fail("gfn " + std::to_string(gfn) + " is mapped to a frame that is not its own");
      }
    }
  }

  // Writes are withheld, and give back or split large leaves, while others zap them.
  void LogDirty(uint64_t seed) {
    std::mt19937_64 random(seed);
    GuestAddressSpace& space = *guest_.t().space;
    while (running_ > 0 && !failed_) {
      DirtyLogOptions options;
      options.eager_split = random() % 2 == 0;
      const auto enabled = space.EnableDirtyLog(options);
      if (!enabled.ok()) Fail(enabled.status().ToString());
      for (int i = 0; i < 20; ++i) {
        const auto dirty = space.HarvestDirty({Gfn(0), frames_});
        if (!dirty.ok()) Fail(dirty.status().ToString());
      }
      const auto disabled = space.DisableDirtyLog();
      if (!disabled.ok()) Fail(disabled.status().ToString());
    }
  }

  enum class With { kNoLog, kDirtyLog };

  void Run(With with = With::kNoLog) {
    ASSERT_TRUE(guest_.t().create_status.ok()) << guest_.t().create_status;
    guest_.t().log.Mute();
    const uint64_t seed = TestSeed();
    std::cout << "TWINROOT_TEST_SEED=" << seed << "\n";
    running_ = 2;
    std::vector<std::thread> threads;
    for (int vcpu = 0; vcpu < 2; ++vcpu) {
      threads.emplace_back([this, vcpu, seed] { Vcpu(vcpu, seed + vcpu); });
    }
    threads.emplace_back([this, seed] { Convert(seed + 10); });
    threads.emplace_back([this, seed] { Convert(seed + 11); });
    threads.emplace_back([this, seed] { ReadShared(seed + 12); });
    threads.emplace_back([this, seed] { Prefault(seed + 13); });
    if (with == With::kDirtyLog) threads.emplace_back([this, seed] { LogDirty(seed + 14); });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(failure_, "") << "seed " << seed;
    const absl::Status audit = guest_.t().space->Audit();
    EXPECT_TRUE(audit.ok()) << audit;
    EXPECT_EQ(guest_.t().space->bugged(), "");
    EXPECT_GT(guest_.t().space->stats().faults_fixed, 0u);
    EXPECT_GT(guest_.t().space->stats().faults_memory, 0u);
  }

 private:
  void Fail(const std::string& what) {
    if (!failed_.exchange(true)) failure_ = what;
  }

  const uint64_t frames_;
  ProcessorGuest guest_;
  std::atomic<int> running_{0};
  std::atomic<bool> failed_{false};
  std::string failure_;  // written by the one that set failed_
};

TestSpaceOptions Options(uint64_t frames, RootArrangement arrangement) {
  TestSpaceOptions options;
  options.frames = frames;
  options.arrangement = arrangement;
  options.pool_pages = 4096;
  return options;
}

class EngineStressTest : public testing::TestWithParam<RootArrangement> {};

TEST_P(EngineStressTest, NoThreadSeesAPageThatIsNotItsOwn) {
  Stress(Options(kFrames, GetParam())).Run();
}

TEST_P(EngineStressTest, NoThreadSeesAPageThatIsNotItsOwnInSmallPages) {
  TestSpaceOptions options = Options(kFrames, GetParam());
  options.max_level = Level::k4K;
  Stress(options).Run();
}

TEST_P(EngineStressTest, NoThreadSeesAPageThatIsNotItsOwnInPagesOfAllSizes) {
  Stress(Options(2 * kGib + 700, GetParam())).Run();
}

TEST_P(EngineStressTest, NoThreadSeesAPageThatIsNotItsOwnWithExternalTables) {
  TestSpaceOptions options = Options(kFrames, GetParam());
  options.external = true;
  Stress(options).Run();
}

TEST_P(EngineStressTest, NoThreadSeesAPageThatIsNotItsOwnWhileWritesAreLogged) {
  Stress(Options(kFrames, GetParam())).Run(Stress::With::kDirtyLog);
}

// Tables are retired and reused all the time, under readers that still know them.
TEST_P(EngineStressTest, NoThreadSeesAPageThatIsNotItsOwnWithFewTables) {
  TestSpaceOptions options = Options(kFrames, GetParam());
  options.pool_pages = 32;
  Stress(options).Run();
}

INSTANTIATE_TEST_SUITE_P(Arrangements, EngineStressTest,
                         testing::Values(RootArrangement::kTwoRoots, RootArrangement::kOneRoot),
                         [](const auto& info) {
                           return info.param == RootArrangement::kOneRoot ? "OneRoot" : "TwoRoots";
                         });

}  // namespace
}  // namespace twinroot::mmu
