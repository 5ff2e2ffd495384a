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
constexpr uint64_t kSharedMark = uint64_t{1} << 63;

uint64_t MarkOf(uint64_t gfn, MemoryKind kind) {
  return (gfn + 1) | (kind == MemoryKind::kShared ? kSharedMark : 0);
}

class Stress {
 public:
  explicit Stress(const TestSpaceOptions& options) : guest_(options, /*deaf=*/false) {}

  void Vcpu(int vcpu, uint64_t seed) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < 4000 && !failed_; ++i) {
      const uint64_t gfn = random() % kFrames;
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
      const uint64_t first = random() % kFrames;
      const uint64_t count = std::min<uint64_t>(1 + random() % 600, kFrames - first);
      const GfnRange range{Gfn(first), random() % 2 == 0 ? 1 : count};
      const absl::Status status =
          random() % 8 == 0
              ? guest_.t().space->Zap(range)
              : guest_.t()
                    .space
                    ->SetMemoryAttributes({.ranges = {range},
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
      const uint64_t gfn = random() % kFrames;
      const absl::Status status = guest_.t().space->WithSharedPages({Gfn(gfn), 1}, [&] {
        const uint64_t word =
            std::atomic_ref<uint64_t>(guest_.t().pages.Mark(Gfn(gfn), MemoryKind::kShared))
                .load(std::memory_order_relaxed);
        if (word != 0 && word != MarkOf(gfn, MemoryKind::kShared)) Fail("host read a leak");
      });
      if (!status.ok() && !absl::IsPermissionDenied(status)) Fail(status.ToString());
    }
  }

  void Run() {
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

  ProcessorGuest guest_;
  std::atomic<int> running_{0};
  std::atomic<bool> failed_{false};
  std::string failure_;  // written by the one that set failed_
};

TEST(EngineStressTest, NoThreadSeesAPageThatIsNotItsOwn) { Stress({.frames = kFrames}).Run(); }

TEST(EngineStressTest, NoThreadSeesAPageThatIsNotItsOwnInSmallPages) {
  Stress({.frames = kFrames, .max_level = Level::k4K}).Run();
}

TEST(EngineStressTest, NoThreadSeesAPageThatIsNotItsOwnWithExternalTables) {
  Stress({.frames = kFrames, .external = true}).Run();
}

}  // namespace
}  // namespace twinroot::mmu
