// The attribute map against a flat array under random batches, and readers beside a writer.
// The seed is printed; TWINROOT_TEST_SEED replays it.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <random>
#include <thread>
#include <vector>

#include "mmu/vm/attribute_map.h"

namespace twinroot::mmu {
namespace {

constexpr MemoryAttributes kPrivate{MemoryKind::kPrivate};
constexpr MemoryAttributes kShared{MemoryKind::kShared};
constexpr MemoryAttributes kReadOnly{MemoryKind::kPrivate, Access::Write()};

constexpr uint64_t k2MFrames = FramesPerEntry(Level::k2M);
constexpr uint64_t k1GFrames = FramesPerEntry(Level::k1G);
constexpr uint64_t k512GFrames = FramesPerEntry(Level::k512G);
constexpr Gfn kLimit(k512GFrames* kEntriesPerTable);

uint64_t Seed() {
  const char* const given = std::getenv("TWINROOT_TEST_SEED");
  const uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device()();
  std::cout << "TWINROOT_TEST_SEED=" << seed << "\n";
  return seed;
}

struct Part {
  GfnRange range;
  MemoryAttributes attributes;
};

// A window of the guest's frames, as a map and as an array.
class Window {
 public:
  Window(Gfn first, uint64_t frames, uint64_t seed)
      : all_{first, frames}, flat_(frames, kShared.word()), random_(seed) {}

  void RandomChange() {
    const std::vector<Part> parts = RandomParts();
    for (const Part& part : parts) {
      ASSERT_TRUE(map_.Prepare(turn_, part.range, part.attributes).ok());
    }
    ASSERT_NO_FATAL_FAILURE(CheckRuns());
    if (random_() % 4 != 0) {
      for (const Part& part : parts) {
        map_.Set(turn_, part.range, part.attributes);
        std::fill_n(flat_.begin() + (part.range.first - all_.first), part.range.count,
                    part.attributes.word());
        if (random_() % 4 == 0) {
          ASSERT_NO_FATAL_FAILURE(CheckRuns());
        }
      }
    }
    for (const Part& part : parts) map_.Collapse(turn_, part.range);
    ASSERT_NO_FATAL_FAILURE(CheckRuns());
    ASSERT_NO_FATAL_FAILURE(CheckFrames());
  }

  // Equal frames leave no split behind.
  void SetAllBack() {
    ASSERT_TRUE(map_.Prepare(turn_, all_, kShared).ok());
    map_.Set(turn_, all_, kShared);
    map_.Collapse(turn_, all_);
    ASSERT_EQ(map_.bytes(), 0u);
    std::fill(flat_.begin(), flat_.end(), kShared.word());
  }

 private:
  // Disjoint, in any order; often short, often ending at a leaf's border.
  std::vector<Part> RandomParts() {
    std::vector<uint64_t> cuts;
    for (uint64_t i = 2 + random_() % 8; i > 0; --i) {
      const uint64_t at = random_() % (all_.count + 1);
      cuts.push_back(at);
      cuts.push_back(random_() % 2 == 0 ? std::min(all_.count, at + 1 + random_() % 20)
                                        : at - (all_.first.value + at) % k2MFrames % (at + 1));
    }
    std::sort(cuts.begin(), cuts.end());
    std::vector<Part> parts;
    const bool denials = random_() % 2 == 0;
    for (size_t i = 1; i < cuts.size(); ++i) {
      if (cuts[i] == cuts[i - 1] || random_() % 2 == 0) continue;
      const auto word = static_cast<uint8_t>(random_() % (denials ? 16 : 2));
      parts.push_back(
          {{all_.first + cuts[i - 1], cuts[i] - cuts[i - 1]}, MemoryAttributes::FromWord(word)});
    }
    std::shuffle(parts.begin(), parts.end(), random_);
    return parts;
  }

  uint8_t At(Gfn gfn) const { return flat_[gfn - all_.first]; }

  void CheckRuns() const {
    const EpochGuard guard;
    Gfn at = all_.first;
    map_.ForEachRun(guard, all_, [&](GfnRange run, MemoryAttributes is) {
      ASSERT_EQ(run.first, at);
      ASSERT_TRUE(at == all_.first || At(at - 1) != is.word()) << "not maximal: " << at.value;
      for (; at < run.end(); at = at + 1) ASSERT_EQ(At(at), is.word()) << at.value;
    });
    ASSERT_EQ(at, all_.end());
  }

  void CheckFrames() {
    const EpochGuard guard;
    for (int i = 0; i < 100; ++i) {
      const Gfn gfn = all_.first + random_() % all_.count;
      ASSERT_EQ(map_.Get(guard, gfn).word(), At(gfn)) << gfn.value;
    }
    for (const Level level : {Level::k4K, Level::k2M, Level::k1G}) {
      const uint64_t frames = FramesPerEntry(level);
      const Gfn gfn = all_.first + random_() % all_.count;
      const GfnRange leaf{gfn - gfn.value % frames, frames};
      const GfnRange seen = Intersection(leaf, all_);
      const auto first = flat_.begin() + (seen.first - all_.first);
      // Frames outside of the window were never set.
      const uint8_t expected = seen == leaf ? *first : kShared.word();
      const bool same = std::all_of(first, first + seen.count,
                                    [expected](uint8_t word) { return word == expected; });
      ASSERT_EQ(map_.UniformAt(guard, gfn, level), same) << gfn.value;
    }
  }

  const GfnRange all_;
  std::vector<uint8_t> flat_;
  std::mt19937_64 random_;
  Mutex mutex_;
  Turn turn_{mutex_};
  AttributeMap map_{kLimit};
};

TEST(AttributeMapRandomTest, AgreesWithAFlatArrayUnderRandomBatches) {
  const uint64_t seed = Seed();
  // At the start, over borders of the trunk, and in the middle of nowhere.
  for (const Gfn first : {Gfn(0), Gfn(k1GFrames - 2500), Gfn(k512GFrames - 700),
                          Gfn(5 * k512GFrames + 100 * k1GFrames - 1000)}) {
    Window window(first, 5000, seed + first.value);
    for (int round = 0; round < 300; ++round) {
      ASSERT_NO_FATAL_FAILURE(window.RandomChange()) << first.value << " round " << round;
    }
    ASSERT_NO_FATAL_FAILURE(window.SetAllBack());
  }
}

TEST(AttributeMapRandomTest, AgreesWithAFlatArrayOverManyLeaves) {
  Window window(Gfn(k1GFrames - 40000), 90000, Seed());
  for (int round = 0; round < 60; ++round) {
    ASSERT_NO_FATAL_FAILURE(window.RandomChange()) << "round " << round;
  }
  ASSERT_NO_FATAL_FAILURE(window.SetAllBack());
}

// Leaves of three sorts lie in turn in a window over a border of the trunk: one is never changed,
// one changes its kind, one its kind and denials. Whatever a reader meets must fit the sort.
class Beside {
 public:
  static constexpr GfnRange kAll{Gfn(k1GFrames - 12 * k2MFrames), 24 * k2MFrames};

  static bool May(Gfn gfn, MemoryAttributes is) {
    const uint64_t sort = gfn.value / k2MFrames % 3;
    return is == kPrivate || (sort > 0 && is == kShared) || (sort == 2 && is == kReadOnly);
  }

  void Read(uint64_t seed) {
    std::mt19937_64 random(seed);
    while (!stop_.load(std::memory_order_relaxed)) {
      const EpochGuard guard;
      const Gfn gfn = kAll.first + random() % kAll.count;
      if (!May(gfn, map_.Get(guard, gfn))) wrong_ = true;
      const Gfn never = gfn - gfn.value % (3 * k2MFrames);
      if (kAll.Contains(never) && !map_.UniformAt(guard, never, Level::k2M)) wrong_ = true;
      const GfnRange range = Intersection({gfn, 1 + random() % (4 * k2MFrames)}, kAll);
      Gfn at = range.first;
      map_.ForEachRun(guard, range, [&](GfnRange run, MemoryAttributes is) {
        if (run.first != at || !May(run.first, is) || !May(run.end() - 1, is)) wrong_ = true;
        at = run.end();
      });
      if (at != range.end()) wrong_ = true;
      rounds_.fetch_add(1, std::memory_order_relaxed);
    }
  }

  void Write(uint64_t seed, int changes) {
    std::mt19937_64 random(seed);
    const Turn turn(mutex_);
    for (int i = 0; i < changes || rounds_.load() < 100; ++i) {
      std::vector<Part> parts;
      for (Gfn leaf = kAll.first; leaf < kAll.end(); leaf = leaf + k2MFrames) {
        const uint64_t sort = leaf.value / k2MFrames % 3;
        if (sort == 0 || random() % 4 != 0) continue;
        const uint64_t at = random() % 3 == 0 ? 0 : random() % k2MFrames;
        const uint64_t count = at == 0 ? k2MFrames : 1 + random() % (k2MFrames - at);
        const MemoryAttributes choice[] = {kPrivate, kShared, kReadOnly};
        parts.push_back({{leaf + at, count}, choice[random() % (sort + 1)]});
      }
      for (const Part& part : parts) {
        ASSERT_TRUE(map_.Prepare(turn, part.range, part.attributes).ok());
      }
      for (const Part& part : parts) map_.Set(turn, part.range, part.attributes);
      for (const Part& part : parts) map_.Collapse(turn, part.range);
    }
  }

  void Run(uint64_t seed) {
    {
      const Turn turn(mutex_);
      ASSERT_TRUE(map_.Prepare(turn, kAll, kPrivate).ok());
      map_.Set(turn, kAll, kPrivate);
      map_.Collapse(turn, kAll);
    }
    std::thread readers[] = {std::thread([&] { Read(seed + 1); }),
                             std::thread([&] { Read(seed + 2); })};
    Write(seed, 4000);
    stop_ = true;
    for (std::thread& reader : readers) reader.join();
    EXPECT_FALSE(wrong_);
  }

 private:
  Mutex mutex_;
  AttributeMap map_{kLimit};
  std::atomic<bool> stop_{false};
  std::atomic<bool> wrong_{false};
  std::atomic<uint64_t> rounds_{0};
};

TEST(AttributeMapRandomTest, ReadersBesideAWriterSeeOldOrNewAndNothingElse) {
  Beside().Run(Seed());
}

TEST(AttributeMapRandomTest, NothingIsFreedUnderAReaderWhoCameBefore) {
  std::atomic<bool> inside{false}, leaving{false};
  std::thread reader([&] {
    const EpochGuard guard;
    inside = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    leaving = true;
  });
  while (!inside) std::this_thread::yield();

  Mutex mutex;
  const Turn turn(mutex);
  AttributeMap map(kLimit);
  const GfnRange frame{Gfn(k1GFrames + 7), 1};
  size_t before = 0;
  for (int i = 0; map.retired_bytes(turn) >= before; ++i) {
    before = map.retired_bytes(turn);
    const MemoryAttributes attributes = i % 2 == 0 ? kPrivate : kShared;
    ASSERT_TRUE(map.Prepare(turn, frame, attributes).ok());
    map.Set(turn, frame, attributes);
    map.Collapse(turn, frame);
  }
  EXPECT_TRUE(leaving);
  reader.join();
}

}  // namespace
}  // namespace twinroot::mmu
