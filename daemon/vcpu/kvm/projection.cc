#include "daemon/vcpu/kvm/projection.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/vcpu/kvm/kvm_abi.h"
#include "mmu/types/level.h"

namespace twinroot::kvm {

using mmu::Gfn;
using mmu::GfnRange;
using mmu::kPageShift;
using mmu::Level;
using Rights = Userfault::Rights;

namespace {

constexpr uint64_t kBlockFrames = mmu::FramesPerEntry(Level::k2M);
constexpr uint64_t kBlockBytes = mmu::BytesPerEntry(Level::k2M);
// Mapped around a fault in a leaf that the kernel has dropped parts of: as far as it maps around
// faults by itself.
constexpr uint64_t kNeighbours = 16;
// A leaf whose pages stay in use for so long keeps its 512 entries.
constexpr uint8_t kMostTries = 100;

thread_local const Gfn* faulting_here = nullptr;

absl::Status OnlyLeavesOf2M() {
  return absl::UnimplementedError("a projection has leaves of 4 KiB and 2 MiB");
}

}  // namespace

void Projection::AddCounts(vcpu::ProjectionCounts& counts) const {
  std::lock_guard lock(mutex_);
  for (const Window& window : windows_) {
    for (const Block block : window.blocks) {
      if (block == Block::kWhole) ++counts.whole;
      if (block == Block::kPieces) ++counts.pieces;
    }
  }
  counts.kept_no_memory += counts_.kept_no_memory;
  counts.kept_writes_watched += counts_.kept_writes_watched;
  counts.kept_busy += counts_.kept_busy;
  counts.renewals += counts_.renewals;
}

std::optional<Gfn> Projection::GfnAt(uint64_t address) const {
  std::shared_lock use(use_);
  for (const Window& window : windows_) {
    const uint64_t offset = address - reinterpret_cast<uintptr_t>(window.mapping.data());
    if (offset < window.mapping.size()) return window.range.first + (offset >> kPageShift);
  }
  return std::nullopt;
}

Projection::Window* Projection::WindowOf(Gfn gfn) {
  for (Window& window : windows_) {
    if (window.range.Contains(gfn)) return &window;
  }
  return nullptr;
}

std::byte* Projection::AddressOf(const Window& window, Gfn gfn) {
  return window.mapping.data() + ((gfn - window.range.first) << kPageShift);
}

Projection::Spot Projection::SpotOf(Window& window, Gfn gfn) {
  return {&window, static_cast<size_t>((gfn - window.range.first) / kBlockFrames)};
}

void Projection::Wake(Gfn gfn) {
  std::shared_lock use(use_);
  if (const Window* window = WindowOf(gfn)) {
    userfault_->Wake(AddressOf(*window, gfn), mmu::kPageSize);
  }
}

absl::Status Projection::Poison(Gfn gfn) {
  std::shared_lock use(use_);
  const Window* const window = WindowOf(gfn);
  if (window == nullptr || revoked_.load(std::memory_order_acquire)) return absl::OkStatus();
  return userfault_->Poison(AddressOf(*window, gfn), mmu::kPageSize);
}

Projection::Faulting::Faulting(Gfn gfn) : gfn_(gfn) { faulting_here = &gfn_; }
Projection::Faulting::~Faulting() { faulting_here = nullptr; }

// A leaf that is being settled is touched by nobody else: what the kernel is about to map there
// could not be taken away for good.
void Projection::AwaitSettled(std::unique_lock<std::mutex>& lock, const Window& window,
                              GfnRange range) {
  settled_.wait(lock, [&] {
    if (!settling_ || settling_->window != &window) return true;
    const GfnRange block{window.range.first + settling_->block * kBlockFrames, kBlockFrames};
    return !block.Overlaps(range);
  });
}

absl::Status Projection::Map(const Window& window, GfnRange range, Rights rights) {
  std::byte* const address = AddressOf(window, range.first);
  const uint64_t bytes = range.count << kPageShift;
  if (absl::Status status = userfault_->Continue(address, bytes, rights); !status.ok()) {
    return status;
  }
  // Pages that were there may lack the right.
  if (rights == Rights::kRead || !watches_writes_.load(std::memory_order_acquire)) {
    return absl::OkStatus();
  }
  return userfault_->Unprotect(address, bytes);
}

absl::Status Projection::Set(Gfn gfn, Level level, mmu::Access access, mmu::Pfn) {
  if (level > Level::k2M) return OnlyLeavesOf2M();
  std::shared_lock use(use_);
  Window* const window = WindowOf(gfn);
  if (window == nullptr) return absl::InternalError("leaf outside every window");
  if (!access.write()) {
    if (absl::Status status = WatchWrites(); !status.ok()) return status;
  }
  const Rights rights = access.write() ? Rights::kWrite : Rights::kRead;
  const GfnRange leaf{gfn, mmu::FramesPerEntry(level)};
  GfnRange part = leaf;
  bool is_new = false;
  if (level == Level::k2M) {
    const Block before = MakeLarge(*window, leaf);
    is_new = before == Block::kSmall;
    if (!is_new && faulting_here != nullptr && leaf.Contains(*faulting_here)) {
      part = {*faulting_here - faulting_here->value % kNeighbours, kNeighbours};
    } else if (before == Block::kWhole && !watches_writes_.load(std::memory_order_acquire)) {
      return absl::OkStatus();  // what the kernel has dropped of it comes back by faults
    }
  }
  if (absl::Status status = Map(*window, part, rights); !status.ok()) {
    // A part may be mapped by now, with rights that the leaf has not. Whoever needs it asks again.
    TakeAway(*window, leaf).IgnoreError();
    return status;
  }
  if (is_new) {
    // A log that split nothing ends without Merge.
    if (access.write() && watches_writes_.load(std::memory_order_acquire)) {
      needs_renewal_.store(true, std::memory_order_release);
    }
    unsettled_();
  }
  return absl::OkStatus();
}

Projection::Block Projection::MakeLarge(Window& window, GfnRange leaf) {
  const Spot spot = SpotOf(window, leaf.first);
  std::unique_lock lock(mutex_);
  AwaitSettled(lock, window, leaf);
  Block& block = window.blocks[spot.block];
  if (block != Block::kSmall) return block;
  block = Block::kPieces;
  window.tries[spot.block] = 0;
  if (!window.listed[spot.block]) unsettled_spots_.push_back(spot);
  window.listed[spot.block] = true;
  return Block::kSmall;
}

absl::Status Projection::Split(Gfn gfn, Level level) {
  if (level != Level::k2M) return OnlyLeavesOf2M();
  std::shared_lock use(use_);
  Window* const window = WindowOf(gfn);
  if (window == nullptr) return absl::InternalError("leaf outside every window");
  const GfnRange leaf{gfn, kBlockFrames};
  bool whole;
  {
    std::unique_lock lock(mutex_);
    AwaitSettled(lock, *window, leaf);
    Block& block = window->blocks[SpotOf(*window, gfn).block];
    whole = block == Block::kWhole;
    block = Block::kSmall;
  }
  if (!whole) return absl::OkStatus();  // 512 entries already
  // An entry of a file cannot be split in place. What a vCPU touches meanwhile it waits for.
  if (absl::Status status = TakeAway(*window, leaf); !status.ok()) return status;
  // Where writes are watched the engine gives the right to each page when it is asked for.
  const Rights rights =
      watches_writes_.load(std::memory_order_acquire) ? Rights::kRead : Rights::kWrite;
  // Without memory for the host's tables they come back one by one.
  Map(*window, leaf, rights).IgnoreError();
  return absl::OkStatus();
}

absl::Status Projection::Merge(Gfn gfn, Level level) {
  if (level != Level::k2M) return OnlyLeavesOf2M();
  std::shared_lock use(use_);
  Window* const window = WindowOf(gfn);
  if (window == nullptr) return absl::InternalError("leaf outside every window");
  MakeLarge(*window, {gfn, kBlockFrames});
  // Leaves become large again when no log watches them any more.
  if (watches_writes_.load(std::memory_order_acquire)) {
    needs_renewal_.store(true, std::memory_order_release);
  }
  unsettled_();
  return absl::OkStatus();
}

absl::Status Projection::WatchWrites() {
  if (watches_writes_.load(std::memory_order_acquire)) {
    // Somebody wants it again.
    if (NeedsRenewal()) needs_renewal_.store(false, std::memory_order_release);
    return absl::OkStatus();
  }
  if (!userfault_->can_watch_writes()) {
    return absl::UnimplementedError("this kernel cannot withhold writes from guest memory");
  }
  std::lock_guard lock(watch_mutex_);
  for (const Window& window : windows_) {
    if (absl::Status status = userfault_->Register(window.mapping.data(), window.mapping.size(),
                                                   Userfault::Watch::kWritesToo);
        !status.ok()) {
      return status;
    }
  }
  needs_renewal_.store(false, std::memory_order_release);
  watches_writes_.store(true, std::memory_order_release);
  return absl::OkStatus();
}

absl::Status Projection::WithholdWrite(GfnRange range) {
  std::shared_lock use(use_);
  if (revoked_.load(std::memory_order_acquire)) return absl::OkStatus();  // nobody can write
  if (absl::Status status = WatchWrites(); !status.ok()) return status;
  for (Window& window : windows_) {
    const GfnRange part = mmu::Intersection(range, window.range);
    if (part.empty()) continue;
    {
      std::unique_lock lock(mutex_);
      AwaitSettled(lock, window, part);
      // The kernel protects entries of 4K only, and drops larger ones.
      ForEachBlock(window, part, [](Block& block) {
        if (block == Block::kWhole) block = Block::kPieces;
      });
    }
    if (absl::Status status =
            userfault_->Protect(AddressOf(window, part.first), part.count << kPageShift);
        !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status Projection::Remove(GfnRange range) {
  std::shared_lock use(use_);
  for (Window& window : windows_) {
    const GfnRange part = mmu::Intersection(range, window.range);
    if (part.empty()) continue;
    if (absl::Status status = TakeAway(window, part); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Projection::TakeAway(Window& window, GfnRange range) {
  {
    std::unique_lock lock(mutex_);
    AwaitSettled(lock, window, range);
    ForEachBlock(window, range, [](Block& block) { block = Block::kSmall; });
  }
  // The pages stay in the memfd; the kernel makes KVM drop its entries before this returns.
  if (madvise(AddressOf(window, range.first), range.count << kPageShift, MADV_DONTNEED) == 0) {
    return absl::OkStatus();
  }
  return absl::InternalError(
      absl::StrCat("cannot take pages away from the guest: ", std::strerror(errno)));
}

bool Projection::Settle() {
  std::shared_lock use(use_);
  std::unique_lock lock(mutex_);
  if (revoked_.load(std::memory_order_acquire)) return false;
  std::optional<Spot> found;
  while (!found && !unsettled_spots_.empty()) {
    const Spot spot = unsettled_spots_.front();
    unsettled_spots_.pop_front();
    spot.window->listed[spot.block] = false;
    if (spot.window->blocks[spot.block] == Block::kPieces) found = spot;
  }
  if (!found) {
    if (busy_spots_.empty()) return false;
    unsettled_spots_.swap(busy_spots_);
    lock.unlock();
    unsettled_();  // they get another try, a while later
    return false;
  }
  if (watches_writes_.load(std::memory_order_acquire)) {
    ++counts_.kept_writes_watched;
    return true;
  }
  settling_ = found;
  lock.unlock();
  const int error = madvise(found->window->mapping.data() + found->block * kBlockBytes, kBlockBytes,
                            kMadviseCollapse) == 0
                        ? 0
                        : errno;
  lock.lock();
  settling_.reset();
  if (error == 0) {
    found->window->blocks[found->block] = Block::kWhole;
  } else if (error == ENOMEM) {
    ++counts_.kept_no_memory;
  } else if (watches_writes_.load(std::memory_order_acquire)) {
    ++counts_.kept_writes_watched;
  } else if (found->window->tries[found->block]++ < kMostTries) {
    // A page is locked, or on its way between lists of the kernel's: that passes.
    found->window->listed[found->block] = true;
    busy_spots_.push_back(*found);
  } else {
    ++counts_.kept_busy;
  }
  lock.unlock();
  settled_.notify_all();
  return true;
}

template <typename Function>
void Projection::ForEachBlock(Window& window, GfnRange range, const Function& function) {
  const size_t first = SpotOf(window, range.first).block;
  const size_t last = SpotOf(window, range.end() - 1).block;
  for (size_t i = first; i <= last; ++i) function(window.blocks[i]);
}

absl::Status ProbeWholeLeaves() {
  constexpr char kHint[] =
      "; Linux 6.1 with transparent huge pages, and 2 MiB in one piece, are needed";
  memory::HpaSpace space;
  absl::StatusOr<std::unique_ptr<memory::GuestRam>> ram =
      memory::GuestRam::Create(kBlockBytes, &space, memory::Commit::kWholeLeaves);
  if (!ram.ok()) return ram.status();
  absl::StatusOr<Userfault> userfault = Userfault::Open();
  if (!userfault.ok()) return userfault.status();
  Projection projection(mmu::MemoryKind::kPrivate, &*userfault, [] {});
  if (absl::Status status = projection.Open(**ram); !status.ok()) return status;
  const auto page = (*ram)->Resolve(Gfn(0), projection.kind(), Level::k2M);
  if (!page.ok()) return page.status();
  if (page->max_level != Level::k2M) {
    return absl::ResourceExhaustedError(absl::StrCat("there are no 2 MiB of memory", kHint));
  }
  if (absl::Status status = projection.Set(Gfn(0), Level::k2M, mmu::Access::All(), page->pfn);
      !status.ok()) {
    return status;
  }
  projection.Settle();
  vcpu::ProjectionCounts counts;
  projection.AddCounts(counts);
  if (counts.whole == 1) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("the host does not collapse 512 pages", kHint));
}

}  // namespace twinroot::kvm
