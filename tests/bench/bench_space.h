// A VM for the benchmark: a real address space over a page source that answers at once and keeps
// nothing, since the engine never touches guest pages.
#ifndef TWINROOT_TESTS_BENCH_BENCH_SPACE_H_
#define TWINROOT_TESTS_BENCH_BENCH_SPACE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "mmu/vm/guest_address_space.h"
#include "tests/bench/arena.h"
#include "tests/bench/frames.h"

namespace twinroot::bench {

inline constexpr int kSharedBit = 46;
inline constexpr mmu::Hpa kTablesAt{2048 * kTiB};
// The frame behind gfn, for every slot.
constexpr mmu::Pfn PrivatePfn(mmu::Gfn gfn) { return mmu::PfnOf(mmu::Hpa(512 * kTiB)) + gfn.value; }
constexpr mmu::Pfn SharedPfn(mmu::Gfn gfn) { return mmu::PfnOf(mmu::Hpa(1024 * kTiB)) + gfn.value; }

class InstantPages : public mmu::PageSource {
 public:
  explicit InstantPages(mmu::Level largest) : largest_(largest) {}
  std::optional<mmu::Level> Ready(mmu::Gfn, mmu::MemoryKind) override { return largest_; }
  mmu::Level LargestLeaf(mmu::Gfn, mmu::MemoryKind) override { return largest_; }
  absl::StatusOr<Page> Resolve(mmu::Gfn gfn, mmu::MemoryKind kind, mmu::Level) override {
    return Page{kind == mmu::MemoryKind::kPrivate ? PrivatePfn(gfn) : SharedPfn(gfn), largest_};
  }
  absl::Status Reserve(mmu::GfnRange, mmu::MemoryKind) override { return absl::OkStatus(); }
  void Copy(mmu::GfnRange, mmu::MemoryKind, mmu::MemoryKind) override {}
  void Discard(mmu::GfnRange, mmu::MemoryKind) override {}

 private:
  const mmu::Level largest_;
};

// A big guest of leaves of every size: 4K at first, then 2M, and 1G in the rest.
class MixedPages final : public InstantPages {
 public:
  static constexpr uint64_t kSmallFrames = 4 * kFramesOfGiB;   // 4K
  static constexpr uint64_t kMiddleEnd = 1024 * kFramesOfGiB;  // 2M from there to here

  MixedPages() : InstantPages(mmu::Level::k1G) {}
  static mmu::Level LevelOf(mmu::Gfn gfn) {
    if (gfn.value < kSmallFrames) return mmu::Level::k4K;
    return gfn.value < kMiddleEnd ? mmu::Level::k2M : mmu::Level::k1G;
  }
  std::optional<mmu::Level> Ready(mmu::Gfn gfn, mmu::MemoryKind) override { return LevelOf(gfn); }
  mmu::Level LargestLeaf(mmu::Gfn gfn, mmu::MemoryKind) override { return LevelOf(gfn); }
  absl::StatusOr<Page> Resolve(mmu::Gfn gfn, mmu::MemoryKind kind, mmu::Level wanted) override {
    auto page = InstantPages::Resolve(gfn, kind, wanted);
    page->max_level = LevelOf(gfn);
    return page;
  }
};

class CountingFlusher : public mmu::TlbFlusher {
 public:
  void FlushRange(mmu::MemoryKind, mmu::HwGfn, uint64_t) override { ++flushes; }
  void FlushAll() override { ++flushes; }
  uint64_t flushes = 0;
};

struct BenchSpaceOptions {
  uint64_t frames = kFramesOfGiB;
  uint64_t slots = 1;  // of frames / slots each, side by side
  mmu::Level largest = mmu::Level::k4K;
  bool mixed = false;      // leaves of every size (MixedPages)
  size_t table_pages = 0;  // 0: enough for leaves of `largest` everywhere, in one root
  // For tables below those, and as many more as may wait for an epoch.
  size_t spare_table_pages = 0;
  Arena::Pages table_memory = Arena::Pages::kTouched;
};

class BenchSpace {
 public:
  explicit BenchSpace(const BenchSpaceOptions& options)
      : arena_(TablePages(options), options.table_memory),
        pool_(kTablesAt, arena_.bytes(), arena_.pages()),
        pages_(options.mixed ? std::make_unique<MixedPages>()
                             : std::make_unique<InstantPages>(options.largest)) {
    const auto layout = mmu::GpaLayout::Create(kSharedBit, 48, kSharedBit);
    Require(layout.ok(), "a layout");
    auto made = mmu::GuestAddressSpace::Create(
        {.layout = *layout, .host_maxphyaddr = 52, .capabilities = {}},
        {.pool = &pool_, .pages = pages_.get(), .flusher = &flusher_});
    Require(made.ok(), "an address space");
    space_ = *std::move(made);
    const uint64_t each = options.frames / options.slots;
    for (uint64_t i = 0; i < options.slots; ++i) {
      const mmu::Gfn first(i * each);
      const absl::Status added = space_->AddMemslot({.range = {first, each},
                                                     .private_pfn = PrivatePfn(first),
                                                     .shared_pfn = SharedPfn(first)});
      Require(added.ok(), "a memslot");
    }
  }

  mmu::GuestAddressSpace& operator*() const { return *space_; }
  mmu::GuestAddressSpace* operator->() const { return space_.get(); }
  uint64_t flushes() const { return flusher_.flushes; }

  // How many of the faults mapped a page.
  uint64_t FaultEach(const Frames& frames, mmu::MemoryKind kind = mmu::MemoryKind::kPrivate) {
    return HowMany(frames, [&](mmu::Gfn gfn) {
      const mmu::FaultOutcome outcome =
          space_->HandleFault({RawGpa(gfn, kind), mmu::Access::Read()});
      return std::holds_alternative<mmu::Fixed>(outcome);
    });
  }
  // How many of the writes were faults that made a page writable, or mapped it.
  uint64_t WriteEach(const Frames& frames) {
    return HowMany(frames, [&](mmu::Gfn gfn) {
      const mmu::FaultOutcome outcome =
          space_->HandleFault({RawGpa(gfn, mmu::MemoryKind::kPrivate), mmu::Access::Write()});
      return std::holds_alternative<mmu::Fixed>(outcome);
    });
  }
  // Table memory, used or free, out of every cache.
  void EvictTables() const { arena_.Evict(); }
  void Zap(mmu::GfnRange range) { Require(space_->Zap(range).ok(), "a zap"); }
  // All leaves but those of each first frame, so that the tables stay.
  void ZapBesideTheFirst(mmu::GfnRange range) {
    for (uint64_t i = 0; i < range.count; i += kFramesOf2M) {
      Zap({range.first + i + 1, kFramesOf2M - 1});
    }
  }
  // The frames that changed.
  uint64_t Convert(const std::vector<mmu::GfnRange>& ranges, mmu::MemoryKind kind) {
    const auto done = space_->SetMemoryAttributes({.ranges = ranges, .kind = kind});
    Require(done.ok(), "a conversion");
    uint64_t frames = 0;
    for (const mmu::GfnRange& range : done->converted) frames += range.count;
    return frames;
  }

  static mmu::Gpa RawGpa(mmu::Gfn gfn, mmu::MemoryKind kind) {
    constexpr uint64_t kShared = 64 * kTiB;
    return mmu::Gpa(gfn.value * mmu::kPageSize | (kind == mmu::MemoryKind::kShared ? kShared : 0));
  }

 private:
  static size_t TablePages(const BenchSpaceOptions& options) {
    if (options.table_pages != 0) return options.table_pages;
    // A few hundred that were retired wait for more (TablePool::Retire).
    constexpr size_t kRetired = 256;
    size_t pages = 16;
    if (options.spare_table_pages != 0) pages += options.spare_table_pages + kRetired;
    for (mmu::Level at = mmu::Above(options.largest); at <= mmu::Level::k512G;
         at = mmu::Above(at)) {
      pages += options.frames / mmu::FramesPerEntry(at) + 1;
    }
    return pages;
  }

  Arena arena_;
  mmu::TablePool pool_;
  const std::unique_ptr<InstantPages> pages_;
  CountingFlusher flusher_;
  std::unique_ptr<mmu::GuestAddressSpace> space_;
};

}  // namespace twinroot::bench

#endif  // TWINROOT_TESTS_BENCH_BENCH_SPACE_H_
