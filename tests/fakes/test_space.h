// An address space with everything it needs, small: one slot from gfn 0 on, fakes all around.
#ifndef TWINROOT_TESTS_FAKES_TEST_SPACE_H_
#define TWINROOT_TESTS_FAKES_TEST_SPACE_H_

#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "mmu/vm/guest_address_space.h"
#include "tests/fakes/call_log.h"
#include "tests/fakes/fake_external_tables.h"
#include "tests/fakes/fake_page_source.h"
#include "tests/fakes/recording_flusher.h"

namespace twinroot::mmu {

// Zeroed, page-aligned memory for a TablePool.
class PoolMemory {
 public:
  explicit PoolMemory(size_t pages)
      : bytes_(static_cast<std::byte*>(
            ::operator new (pages* kPageSize, std::align_val_t{kPageSize}))) {
    std::memset(bytes_, 0, pages * kPageSize);
  }
  ~PoolMemory() { ::operator delete (bytes_, std::align_val_t{kPageSize}); }
  PoolMemory(const PoolMemory&) = delete;
  PoolMemory& operator=(const PoolMemory&) = delete;
  std::byte* get() const { return bytes_; }

 private:
  std::byte* bytes_;
};

struct TestSpaceOptions {
  std::optional<int> shared_bit = 46;
  int walk_bits = 48;
  int guest_maxphyaddr = 46;  // the shared bit lies beyond it (A3)
  std::optional<int> execute_only_bit = {};
  RootArrangement arrangement = RootArrangement::kTwoRoots;
  EptCapabilities capabilities = {};
  uint64_t frames = 2048;  // four 2M pages
  bool private_backing = true;
  bool shared_backing = true;
  size_t pool_pages = 64;
  Level max_level = Level::k1G;
  bool external = false;
  TlbFlusher* flusher = nullptr;  // null: the recording one
  PmlSource* pml = nullptr;
  bool nx_huge_pages = false;
  bool add_slot = true;
  CachePolicy cache = CachePolicy::kGuestPat;
  bool tell_private_pending = false;
  MmioCaching mmio_caching = MmioCaching::kNone;
  BugSink* bugs = nullptr;
};

struct TestSpace {
  static constexpr Hpa kPoolBase{uint64_t{0x20} << 30};
  static constexpr Pfn kPrivatePfn{(uint64_t{1} << 30) >> kPageShift};
  static constexpr Pfn kSharedPfn{(uint64_t{0x10} << 30) >> kPageShift};

  explicit TestSpace(const TestSpaceOptions& o = {})
      : options(o),
        pool_memory(o.pool_pages),
        pool(kPoolBase, pool_memory.get(), o.pool_pages),
        pages(o.frames, kPrivatePfn, kSharedPfn, log),
        flusher(log),
        external_private(MemoryKind::kPrivate, log),
        external_shared(MemoryKind::kShared, log) {
    pages.max_level = o.max_level;
    const auto layout =
        GpaLayout::Create(o.shared_bit, o.walk_bits, o.guest_maxphyaddr, o.execute_only_bit);
    GuestAddressSpace::Config config{.layout = *layout,
                                     .host_maxphyaddr = 52,
                                     .capabilities = o.capabilities,
                                     .arrangement = o.arrangement,
                                     .nx_huge_pages = o.nx_huge_pages,
                                     .cache = o.cache,
                                     .tell_private_pending = o.tell_private_pending,
                                     .mmio_caching = o.mmio_caching};
    GuestAddressSpace::Environment env{.pool = &pool,
                                       .pages = &pages,
                                       .flusher = o.flusher != nullptr ? o.flusher : &flusher,
                                       .external_private = o.external ? &external_private : nullptr,
                                       .external_shared = o.external ? &external_shared : nullptr,
                                       .pml = o.pml,
                                       .bugs = o.bugs};
    auto made = GuestAddressSpace::Create(config, env);
    create_status = made.status();
    if (!made.ok()) return;
    space = *std::move(made);
    if (o.add_slot) create_status = space->AddMemslot(Slot());
  }

  Memslot Slot() const {
    Memslot slot{.range = {Gfn(0), options.frames}, .private_pfn = {}, .shared_pfn = {}};
    if (options.private_backing) slot.private_pfn = kPrivatePfn;
    if (options.shared_backing) slot.shared_pfn = kSharedPfn;
    return slot;
  }

  FaultOutcome Touch(uint64_t gfn, MemoryKind kind, Access access = Access::Read()) {
    return space->HandleFault({space->layout().GpaOf(Gfn(gfn), kind), access});
  }
  // Through the execute-only alias.
  FaultOutcome TouchExecuteOnly(uint64_t gfn, MemoryKind kind, Access access) {
    const HwGfn frame = space->layout().HwGfnOf(Gfn(gfn), kind, /*execute_only=*/true);
    return space->HandleFault({Gpa(frame.value << kPageShift), access});
  }
  bool Fixes(uint64_t gfn, MemoryKind kind) {
    return std::holds_alternative<Fixed>(Touch(gfn, kind));
  }
  absl::StatusOr<AttributeChangeResult> Convert(std::vector<GfnRange> ranges, MemoryKind kind,
                                                Content content = Content::kDestroy,
                                                Requester requester = Requester::kHost) {
    return space->SetMemoryAttributes(
        {.ranges = std::move(ranges), .kind = kind, .content = content, .requester = requester});
  }
  bool IsMapped(uint64_t gfn, MemoryKind kind, bool execute_only = false) const {
    return space->Translate(Gpa(gfn << kPageShift), kind, execute_only)->mapped;
  }
  Level LevelOf(uint64_t gfn, MemoryKind kind) const {
    return space->Translate(Gpa(gfn << kPageShift), kind)->level;
  }
  HwGfn Alias(uint64_t gfn, MemoryKind kind) const {
    return space->layout().HwGfnOf(Gfn(gfn), kind);
  }

  const TestSpaceOptions options;
  CallLog log;
  PoolMemory pool_memory;
  TablePool pool;
  FakePageSource pages;
  RecordingFlusher flusher;
  FakeExternalTables external_private;
  FakeExternalTables external_shared;
  absl::Status create_status;
  std::unique_ptr<GuestAddressSpace> space;
};

constexpr GfnRange Frames(uint64_t first, uint64_t count) { return {Gfn(first), count}; }

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_FAKES_TEST_SPACE_H_
