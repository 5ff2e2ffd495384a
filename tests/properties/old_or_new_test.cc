// Old or new, nothing else: every write that an operation makes to table memory is recorded, and
// after each of them a processor that walks must find the translation from before the operation,
// the one from after it, or (where the operation takes away or puts anew) nothing. Never a third
// frame, never wider rights. Until the flush a processor may also still know tables from before:
// walks that begin in those are held to the same.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "mmu/hw/ept_entry.h"
#include "mmu/vmx/ept_walker.h"
#include "tests/fakes/test_space.h"
#include "tests/fakes/write_recorder.h"

namespace twinroot::mmu {
namespace {

constexpr auto kPrivate = MemoryKind::kPrivate;
constexpr auto kShared = MemoryKind::kShared;

// Where a walk ends: present, the page's address for this frame, rights.
struct Seen {
  bool present = false;
  Hpa hpa;
  uint8_t rights = 0;
  friend bool operator==(const Seen&, const Seen&) = default;
};

// Remembers after how many recorded writes it was called.
class MarkingFlusher : public TlbFlusher {
 public:
  void FlushRange(MemoryKind, HwGfn, uint64_t) override { Mark(); }
  void FlushAll() override { Mark(); }
  WriteRecorder* recorder = nullptr;
  std::vector<int> at_steps;

 private:
  void Mark() {
    if (recorder != nullptr) at_steps.push_back(recorder->steps());
  }
};

// Table memory as it was after some of the writes.
class PastMemory : public vmx::PhysicalMemory {
 public:
  PastMemory(const std::byte* memory, size_t pages) : words_(pages * kEntriesPerTable) {
    std::memcpy(words_.data(), memory, pages * kPageSize);
  }
  std::byte* At(Hpa hpa, size_t) override {
    const uint64_t offset = hpa - TestSpace::kPoolBase;
    return offset < words_.size() * sizeof(uint64_t)
               ? reinterpret_cast<std::byte*>(words_.data()) + offset
               : nullptr;
  }
  EptEntry Entry(Hpa table, HwGfn frame, Level level) {
    return EptEntry(*reinterpret_cast<uint64_t*>(
        At(table + EptIndex(frame, level) * sizeof(uint64_t), sizeof(uint64_t))));
  }
  void Apply(const WriteRecorder::Change& change) { words_[change.word] = change.value; }

 private:
  std::vector<uint64_t> words_;
};

struct Case {
  std::string name;
  TestSpaceOptions options;
  std::function<void(TestSpace&)> prepare;
  std::function<void(TestSpace&)> run;
  bool always_present;  // translations that stand before and after stand all the time
};

class OldOrNewTest : public testing::TestWithParam<Case> {
 protected:
  struct Walked {
    HwGfn frame;
    MemoryKind kind;
  };

  std::vector<Walked> Frames(const TestSpace& t) const {
    std::vector<Walked> frames;
    for (const MemoryKind kind : kAllKinds) {
      for (const uint64_t gfn : {0, 1, 5, 511, 512, 513, 600, 700, 701, 1023, 1024, 1500, 2047}) {
        frames.push_back({t.Alias(gfn, kind), kind});
      }
    }
    return frames;
  }
  EptPointer Root(const TestSpace& t, MemoryKind kind) const {
    const EptPointer root = t.space->ept_pointer(kind);
    return EptPointer::Make(root.root(), root.levels(), /*accessed_dirty=*/false);
  }
  Seen Walk(const TestSpace& t, PastMemory& memory, const Walked& walked) const {
    const vmx::EptWalker walker(&memory, {}, 52);
    const Gpa gpa(walked.frame.value << kPageShift);
    // A fetch is what every leaf here grants.
    const auto outcome = walker.Walk(Root(t, walked.kind), gpa, Access::Fetch());
    EXPECT_FALSE(std::holds_alternative<vmx::EptMisconfigurationExit>(outcome));
    EXPECT_FALSE(std::holds_alternative<vmx::MachineCheck>(outcome));
    const auto* found = std::get_if<vmx::EptTranslation>(&outcome);
    return found != nullptr ? Seen{true, found->HpaOf(gpa), found->access.bits()} : Seen{};
  }
  // From a table that a processor still remembers.
  Seen WalkFrom(PastMemory& memory, Hpa table, Level level, HwGfn frame) const {
    for (;; level = Below(level)) {
      const EptEntry entry = memory.Entry(table, frame, level);
      if (!entry.present()) return {};
      if (entry.IsLeaf(level)) {
        const uint64_t inside = frame.value % FramesPerEntry(level);
        return {true, entry.address() + inside * kPageSize, entry.access().bits()};
      }
      table = entry.address();
      if (memory.At(table, sizeof(uint64_t)) == nullptr) return {true, table, 0xFF};
    }
  }
};

TEST_P(OldOrNewTest, EveryWriteShowsTheOldTranslationOrTheNewOne) {
  const Case& c = GetParam();
  MarkingFlusher flusher;
  TestSpaceOptions options = c.options;
  options.flusher = &flusher;
  TestSpace t(options);
  ASSERT_TRUE(t.create_status.ok()) << t.create_status;
  c.prepare(t);
  const size_t pages = options.pool_pages;
  PastMemory before(t.pool_memory.get(), pages);
  PastMemory past(t.pool_memory.get(), pages);
  std::vector<WriteRecorder::Change> changes;
  int steps = 0;
  {
    WriteRecorder recorder(t.pool_memory.get(), pages);
    flusher.recorder = &recorder;
    c.run(t);
    flusher.recorder = nullptr;
    changes = recorder.changes();
    steps = recorder.steps();
  }
  ASSERT_FALSE(changes.empty());
  EXPECT_TRUE(t.space->Audit().ok()) << t.space->Audit();
  const int flushed = flusher.at_steps.empty() ? steps : flusher.at_steps.front();
  PastMemory after(t.pool_memory.get(), pages);

  int seen_old = 0, seen_new = 0;
  const auto check = [&](const Walked& walked, const Seen& now, int step, const char* how) {
    const Seen old = Walk(t, before, walked);
    const Seen fresh = Walk(t, after, walked);
    if (now == old && old != fresh) ++seen_old;
    if (now == fresh && old != fresh) ++seen_new;
    if (now == old || now == fresh) return;
    const bool may_be_absent = !c.always_present || !old.present || !fresh.present;
    EXPECT_TRUE(!now.present && may_be_absent)
        << how << " after write " << step << " of " << steps << ", frame " << walked.frame.value
        << ": hpa " << now.hpa.value << " rights " << int{now.rights};
  };
  for (size_t i = 0; i < changes.size();) {
    const int step = changes[i].step;
    for (; i < changes.size() && changes[i].step == step; ++i) past.Apply(changes[i]);
    for (const Walked& walked : Frames(t)) {
      check(walked, Walk(t, past, walked), step, "walk");
      if (step >= flushed) continue;
      // Through every table that was on the way before.
      const EptPointer root = Root(t, walked.kind);
      Hpa table = root.root();
      for (Level level = root.root_level(); level > Level::k4K; level = Below(level)) {
        const EptEntry link = before.Entry(table, walked.frame, level);
        if (!link.present() || link.IsLeaf(level)) break;
        table = link.address();
        check(walked, WalkFrom(past, table, Below(level), walked.frame), step, "remembered walk");
      }
    }
    if (HasFailure()) return;
  }
  // The recording saw the operation from end to end.
  for (const Walked& walked : Frames(t)) EXPECT_EQ(Walk(t, past, walked), Walk(t, after, walked));
  RecordProperty("writes", steps);
  RecordProperty("seen_old", seen_old);
  RecordProperty("seen_new", seen_new);
}

TestSpaceOptions Options(Level level, RootArrangement arrangement = RootArrangement::kTwoRoots) {
  TestSpaceOptions options;
  options.max_level = level;
  options.arrangement = arrangement;
  options.pool_pages = 32;
  return options;
}

std::vector<Case> Cases() {
  const auto nothing = [](TestSpace&) {};
  const auto touch = [](uint64_t gfn, MemoryKind kind) {
    return [gfn, kind](TestSpace& t) { EXPECT_TRUE(t.Fixes(gfn, kind)); };
  };
  const auto populate = [](TestSpace& t) {
    EXPECT_TRUE(t.Convert({GfnRange{Gfn(700), 2}}, kShared).ok());
    for (const uint64_t gfn : {0, 5, 600, 1024, 2047}) t.Touch(gfn, kPrivate);
    EXPECT_TRUE(t.Fixes(700, kShared));
  };
  const auto convert = [](uint64_t first, uint64_t count, MemoryKind kind) {
    return [=](TestSpace& t) {
      EXPECT_TRUE(
          t.Convert({GfnRange{Gfn(first), count}}, kind, Content::kPreserve, Requester::kGuest)
              .ok());
    };
  };
  const auto zap = [](TestSpace& t) { EXPECT_TRUE(t.space->Zap({Gfn(0), 2048}).ok()); };
  const auto split = [](TestSpace& t) {
    const auto result = t.space->SplitPages({Gfn(0), 2048}, Level::k4K);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_GT(result->split_2m, 0u);
  };
  const auto recover = [](TestSpace& t) {
    const auto result = t.space->RecoverPages({Gfn(0), 2048});
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_GT(result->collapsed, 0u);
  };
  const auto populate_and_split = [populate, split](TestSpace& t) {
    populate(t);
    split(t);
  };
  const auto one_root = RootArrangement::kOneRoot;
  return {
      {"Map4K", Options(Level::k4K), nothing, touch(5, kPrivate), true},
      {"Map2M", Options(Level::k2M), nothing, touch(5, kPrivate), true},
      {"MapBesideLeaves", Options(Level::k4K), populate, touch(1, kPrivate), true},
      {"MapOneRoot", Options(Level::k4K, one_root), populate, touch(701, kShared), true},
      {"Zap4K", Options(Level::k4K), populate, zap, true},
      {"Zap2M", Options(Level::k2M), populate, zap, true},
      {"ZapOneRoot", Options(Level::k4K, one_root), populate, zap, true},
      {"ConvertOneOf4K", Options(Level::k4K), populate, convert(5, 1, kShared), true},
      {"ConvertPartOf2M", Options(Level::k2M), populate, convert(5, 1, kShared), false},
      {"ConvertBack", Options(Level::k2M), populate, convert(600, 200, kPrivate), false},
      {"ConvertAll", Options(Level::k2M, one_root), populate, convert(0, 2048, kShared), true},
      {"Split", Options(Level::k2M), populate, split, true},
      {"Recover", Options(Level::k2M), populate_and_split, recover, true},
      {"RecoverOneRoot", Options(Level::k2M, one_root), populate_and_split, recover, true},
  };
}

// The test above is only worth something if every write is recorded, one by one and in order.
TEST(WriteRecorderTest, EveryWriteIsRecordedInOrder) {
  PoolMemory memory(2);
  auto* const words = reinterpret_cast<std::atomic<uint64_t>*>(memory.get());
  std::vector<WriteRecorder::Change> changes;
  {
    WriteRecorder recorder(memory.get(), 2);
    words[600] = 1;
    words[3].fetch_or(2);
    uint64_t one = 1;
    words[600].compare_exchange_strong(one, 5);
    words[3] = 0;
    EXPECT_EQ(recorder.steps(), 4);
    changes = recorder.changes();
  }
  words[4] = 9;  // nobody listens any more
  ASSERT_EQ(changes.size(), 4u);
  const std::pair<uint64_t, uint64_t> expected[] = {{600, 1}, {3, 2}, {600, 5}, {3, 0}};
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(changes[i].step, i);
    EXPECT_EQ(std::pair(changes[i].word, changes[i].value), expected[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(Operations, OldOrNewTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

// What holds the whole VM still (an audit, say) begins a change of everything: whatever a fault
// wrote then, and be it frozen for a moment, would be seen. LOCKING.md, "Quiet".
TEST(QuietTest, AFaultWritesNothingWhileAChangeOfItsPageIsUnderWay) {
  for (const bool ready : {false, true}) {
    TestSpace t({.max_level = Level::k4K});
    t.pages.ready = ready;
    for (const uint64_t gfn : {5, 6}) ASSERT_TRUE(t.Fixes(gfn, kPrivate));  // the table stays
    int faults = 0;
    t.pages.on_content = [&](GfnRange) {
      const WriteRecorder recorder(t.pool_memory.get(), t.options.pool_pages);
      EXPECT_TRUE(std::holds_alternative<Retry>(t.Touch(5, kPrivate)));
      EXPECT_EQ(recorder.steps(), 0) << "ready " << ready;
      ++faults;
    };
    ASSERT_TRUE(t.Convert({Frames(5, 1)}, kShared).ok());
    EXPECT_EQ(faults, 1);
  }
}

}  // namespace
}  // namespace twinroot::mmu
