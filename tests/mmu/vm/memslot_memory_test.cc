// Memslots come, go and move while the daemon's own memory runs out: every allocation of a change
// fails once. What fails has changed nothing; it fails before the first visible step, or not at
// all. This program's operator new is its own.
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <new>
#include <optional>
#include <string>

#include "tests/mmu/vm/slots_fixture.h"

namespace {

// How many allocations of this thread succeed from now on; negative: all.
thread_local int left = -1;

void* Allocate(std::size_t size) {
  if (left == 0) return nullptr;
  if (left > 0) --left;
  return std::malloc(size);
}

}  // namespace

void* operator new(std::size_t size) {
  if (void* memory = Allocate(size)) return memory;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return Allocate(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }

namespace twinroot::mmu {
namespace {

constexpr auto kPrivate = MemoryKind::kPrivate;
constexpr auto kShared = MemoryKind::kShared;

// Remembers nothing, so it needs no memory.
class QuietFlusher : public TlbFlusher {
 public:
  void FlushRange(MemoryKind, HwGfn, uint64_t) override {}
  void FlushAll() override {}
};

// What anybody can see of the first frames.
std::string Seen(const GuestAddressSpace& space) {
  std::string text;
  for (const AttributeRun& run : space.GetMemoryAttributes()) {
    text += CallText("run", run.kind, run.range.first.value, run.range.count) + "\n";
  }
  for (uint64_t gfn = 0; gfn < 8192; gfn += 17) {
    for (const MemoryKind kind : kAllKinds) {
      const auto walk = space.Translate(Gpa(gfn << kPageShift), kind);
      if (walk->mapped) text += CallText("leaf", kind, gfn, FramesPerEntry(walk->level)) + "\n";
      text += walk->why.in_memslot ? "s" : "-";
    }
  }
  return text;
}

// Nullopt: memory ran out.
std::optional<absl::Status> WithMemoryFor(int allocations,
                                          const std::function<absl::Status()>& change) {
  std::optional<absl::Status> status;
  left = allocations;
  try {
    status = change();
  } catch (const std::bad_alloc&) {
  }
  left = -1;
  if (status && absl::IsResourceExhausted(*status)) return std::nullopt;
  return status;
}

// `make`: an object with a member `space` to change. Returns how often the change failed.
template <typename Make>
int Sweep(const Make& make, const std::function<absl::Status(GuestAddressSpace&)>& change) {
  for (int allocations = 0;; ++allocations) {
    const auto t = make();
    const std::string before = Seen(*t->space);
    const auto run = [&] { return change(*t->space); };
    const std::optional<absl::Status> done = WithMemoryFor(allocations, run);
    EXPECT_EQ(t->space->bugged(), "") << allocations;
    EXPECT_TRUE(t->space->Audit().ok()) << t->space->Audit() << " " << allocations;
    if (done) {
      EXPECT_TRUE(done->ok()) << *done;
      EXPECT_NE(Seen(*t->space), before);
      return allocations;
    }
    EXPECT_EQ(Seen(*t->space), before) << "half a change, after allocation " << allocations;
    EXPECT_TRUE(run().ok()) << "it fails for good, after allocation " << allocations;
    EXPECT_TRUE(t->space->Audit().ok()) << t->space->Audit();
    if (testing::Test::HasFailure()) return allocations;
  }
}

// Two kinds and both sizes mapped, logged or not.
std::unique_ptr<TestSpace> Mapped(QuietFlusher& flusher, bool logged) {
  TestSpaceOptions options;
  options.flusher = &flusher;
  auto t = std::make_unique<TestSpace>(options);
  EXPECT_TRUE(t->Convert({Frames(700, 2)}, kShared).ok());
  for (const uint64_t gfn : {5, 601, 1105}) EXPECT_TRUE(t->Fixes(gfn, kPrivate));
  EXPECT_TRUE(t->Fixes(700, kShared));
  if (logged) {
    EXPECT_TRUE(t->space->EnableDirtyLog({}).ok());
  }
  return t;
}

TEST(MemslotMemoryTest, EveryAllocationOfAnAdditionMayFail) {
  QuietFlusher flusher;
  for (const bool logged : {false, true}) {
    EXPECT_GT(Sweep([&] { return Mapped(flusher, logged); },
                    [](GuestAddressSpace& space) {
                      return space.AddMemslot({.range = Frames(4096, 7),
                                               .private_pfn = Pfn(uint64_t{1} << 25),
                                               .shared_pfn = {}});
                    }),
              3);
  }
}

TEST(MemslotMemoryTest, EveryAllocationOfARemovalMayFail) {
  QuietFlusher flusher;
  for (const bool logged : {false, true}) {
    EXPECT_GT(Sweep([&] { return Mapped(flusher, logged); },
                    [](GuestAddressSpace& space) { return space.RemoveMemslot(Gfn(0)); }),
              3);
  }
}

TEST(MemslotMemoryTest, EveryAllocationOfAMoveMayFail) {
  const auto make = [] {
    auto t = std::make_unique<SlotSpace>();
    EXPECT_TRUE(t->Add(0, 1000, 0).ok());
    EXPECT_TRUE(t->Add(2048, 100, 2048).ok());
    EXPECT_TRUE(t->Convert({Frames(3, 600)}, kShared).ok());
    return t;
  };
  EXPECT_GT(
      Sweep(make, [](GuestAddressSpace& space) { return space.MoveMemslot(Gfn(0), Gfn(4097)); }),
      3);
}

}  // namespace
}  // namespace twinroot::mmu
