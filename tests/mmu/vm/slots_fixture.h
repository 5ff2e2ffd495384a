// An address space whose memslots come, go and move: every slot has a home in the arenas of
// FakePageSource, wherever the guest sees it.
#ifndef TWINROOT_TESTS_MMU_VM_SLOTS_FIXTURE_H_
#define TWINROOT_TESTS_MMU_VM_SLOTS_FIXTURE_H_

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "tests/fakes/test_space.h"

namespace twinroot::mmu {

// Thread-safe.
class MovablePages : public PageSource {
 public:
  MovablePages(uint64_t frames, Pfn private_pfn, Pfn shared_pfn, CallLog& log)
      : pages(frames, private_pfn, shared_pfn, log) {}

  void Place(GfnRange range, Gfn home) {
    const std::lock_guard<std::mutex> lock(mutex_);
    placed_.push_back({range, home});
  }
  // As the owner of a removed slot's backing does.
  void Drop(Gfn first) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::erase_if(placed_, [&](const auto& slot) { return slot.first.first == first; });
  }

  Level LargestLeaf(Gfn gfn, MemoryKind kind) override { return pages.LargestLeaf(gfn, kind); }
  absl::StatusOr<Page> Resolve(Gfn gfn, MemoryKind kind, Level wanted) override {
    if (on_resolve) on_resolve(gfn, kind);
    const std::optional<Gfn> home = HomeOf(gfn);
    if (!home) return absl::NotFoundError("no backing there");
    absl::StatusOr<Page> page = pages.Resolve(*home, kind, wanted);
    if (after_resolve) after_resolve(gfn, kind);
    return page;
  }
  absl::Status Reserve(GfnRange range, MemoryKind kind) override {
    return pages.Reserve({*HomeOf(range.first), range.count}, kind);
  }
  void Copy(GfnRange range, MemoryKind from, MemoryKind to) override {
    pages.Copy({*HomeOf(range.first), range.count}, from, to);
  }
  void Discard(GfnRange range, MemoryKind kind) override {
    pages.Discard({*HomeOf(range.first), range.count}, kind);
  }
  absl::Status Move(GfnRange from, Gfn to) override {
    if (fail_move) return *fail_move;
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto& slot : placed_) {
      if (slot.first == from) slot.first.first = to;
    }
    return absl::OkStatus();
  }

  FakePageSource pages;
  // Set before use.
  std::function<void(Gfn, MemoryKind)> on_resolve, after_resolve;
  std::optional<absl::Status> fail_move;

 private:
  std::optional<Gfn> HomeOf(Gfn gfn) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [range, home] : placed_) {
      if (range.Contains(gfn)) return home + (gfn - range.first);
    }
    return std::nullopt;
  }

  std::mutex mutex_;
  std::vector<std::pair<GfnRange, Gfn>> placed_;
};

inline bool Contains(const DirtyPages& pages, uint64_t gfn) {
  const uint64_t at = gfn - pages.range.first.value;
  return pages.words.at(at / 64) >> at % 64 & 1;
}

struct SlotSpaceOptions {
  std::optional<int> shared_bit = 46;
  RootArrangement arrangement = RootArrangement::kTwoRoots;
  uint64_t frames = 8192;  // of the arenas
  size_t pool_pages = 128;
  Level max_level = Level::k1G;
  bool external = false;
  MmioCaching mmio_caching = MmioCaching::kNone;
  uint64_t first_mmio_generation = 0;
};

struct SlotSpace {
  explicit SlotSpace(const SlotSpaceOptions& o = {})
      : pool_memory(o.pool_pages),
        pool(TestSpace::kPoolBase, pool_memory.get(), o.pool_pages),
        source(o.frames, TestSpace::kPrivatePfn, TestSpace::kSharedPfn, log),
        flusher(log),
        external_private(MemoryKind::kPrivate, log),
        external_shared(MemoryKind::kShared, log) {
    source.pages.max_level = o.max_level;
    GuestAddressSpace::Config config{.layout = *GpaLayout::Create(o.shared_bit, 48, 46),
                                     .capabilities = {},
                                     .arrangement = o.arrangement,
                                     .mmio_caching = o.mmio_caching,
                                     .first_mmio_generation = o.first_mmio_generation};
    GuestAddressSpace::Environment env{.pool = &pool,
                                       .pages = &source,
                                       .flusher = &flusher,
                                       .external_private = o.external ? &external_private : nullptr,
                                       .external_shared = o.external ? &external_shared : nullptr};
    space = *GuestAddressSpace::Create(config, env);
  }

  // A slot at `first` whose home begins at the frame `home` of the arenas.
  Memslot SlotAt(uint64_t first, uint64_t count, uint64_t home) const {
    return {.range = Frames(first, count),
            .private_pfn = TestSpace::kPrivatePfn + home,
            .shared_pfn = TestSpace::kSharedPfn + home};
  }
  absl::Status Add(uint64_t first, uint64_t count, uint64_t home) {
    source.Place(Frames(first, count), Gfn(home));
    return space->AddMemslot(SlotAt(first, count, home));
  }
  FaultOutcome Touch(uint64_t gfn, MemoryKind kind, Access access = Access::Read()) {
    return space->HandleFault({space->layout().GpaOf(Gfn(gfn), kind), access});
  }
  bool Fixes(uint64_t gfn, MemoryKind kind) {
    return std::holds_alternative<Fixed>(Touch(gfn, kind));
  }
  MmioOutcome Misconfigured(uint64_t gfn, MemoryKind kind) {
    return space->HandleMisconfiguration(space->layout().GpaOf(Gfn(gfn), kind, 0x18));
  }
  absl::Status Convert(std::vector<GfnRange> ranges, MemoryKind kind) {
    return space->SetMemoryAttributes({.ranges = std::move(ranges), .kind = kind}).status();
  }
  bool IsMapped(uint64_t gfn, MemoryKind kind) const {
    return space->Translate(Gpa(gfn << kPageShift), kind)->mapped;
  }
  Hpa HpaOf(uint64_t gfn, MemoryKind kind) const {
    return space->Translate(Gpa(gfn << kPageShift), kind)->hpa;
  }
  uint64_t Leaves() const {
    uint64_t sum = 0;
    const AddressSpaceStats stats = space->stats();
    for (const auto& kind : stats.leaves) {
      for (const uint64_t leaves : kind) sum += leaves;
    }
    return sum;
  }

  CallLog log;
  PoolMemory pool_memory;
  TablePool pool;
  MovablePages source;
  RecordingFlusher flusher;
  FakeExternalTables external_private;
  FakeExternalTables external_shared;
  std::unique_ptr<GuestAddressSpace> space;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_MMU_VM_SLOTS_FIXTURE_H_
