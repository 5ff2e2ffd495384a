#include "daemon/memory/guest_ram.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "mmu/types/level.h"

namespace twinroot::memory {

using mmu::Gfn;
using mmu::GfnRange;
using mmu::kPageShift;
using mmu::MemoryKind;

namespace {

constexpr uint64_t kLeafBytes = mmu::BytesPerEntry(mmu::Level::k2M);
constexpr uint64_t LeafOffset(uint64_t offset) { return offset - offset % kLeafBytes; }

absl::StatusOr<RamSlot> MakeSlot(GfnRange range, HpaSpace* space) {
  const uint64_t size = range.count << kPageShift;
  absl::StatusOr<Backing> private_pages = Backing::Create("twinroot-private", size, space);
  if (!private_pages.ok()) return private_pages.status();
  absl::StatusOr<Backing> shared_pages = Backing::Create("twinroot-shared", size, space);
  if (!shared_pages.ok()) return shared_pages.status();
  return RamSlot{range, *std::move(private_pages), *std::move(shared_pages)};
}

}  // namespace

absl::StatusOr<std::unique_ptr<GuestRam>> GuestRam::Create(uint64_t bytes, HpaSpace* space,
                                                           Commit commit) {
  std::unique_ptr<GuestRam> ram(new GuestRam(bytes, commit));
  auto add = [&](uint64_t base, uint64_t size) -> absl::Status {
    auto slot = MakeSlot({Gfn(base >> kPageShift), size >> kPageShift}, space);
    if (!slot.ok()) return slot.status();
    ram->slots_.push_back(*std::move(slot));
    return absl::OkStatus();
  };
  ram->slots_.reserve(2);
  if (absl::Status status = add(0, ram->low_bytes()); !status.ok()) return status;
  if (bytes > kLowRamLimit) {
    if (absl::Status status = add(kHighRamBase, bytes - kLowRamLimit); !status.ok()) return status;
  }
  return ram;
}

std::vector<mmu::Memslot> GuestRam::Memslots() const {
  std::vector<mmu::Memslot> memslots;
  for (const RamSlot& slot : slots_) memslots.push_back(slot.memslot());
  std::shared_lock lock(added_mutex_);
  for (const RamSlot& slot : added_) memslots.push_back(slot.memslot());
  return memslots;
}

absl::Status GuestRam::CheckAdd(GfnRange range) const {
  const std::vector<mmu::Memslot> all = Memslots();
  for (const mmu::Memslot& other : all) {
    if (!other.range.Overlaps(range)) continue;
    return absl::AlreadyExistsError(absl::StrCat("there is memory at 0x",
                                                 absl::Hex(other.range.first.value << kPageShift),
                                                 " already: name a range that does not touch it"));
  }
  return absl::OkStatus();
}

absl::StatusOr<RamSlot*> GuestRam::Add(GfnRange range, HpaSpace* space) {
  if (absl::Status status = CheckAdd(range); !status.ok()) return status;
  auto slot = MakeSlot(range, space);
  if (!slot.ok()) return slot.status();
  std::unique_lock lock(added_mutex_);
  return &added_.emplace_back(*std::move(slot));
}

RamSlot* GuestRam::Added(Gfn first) {
  std::shared_lock lock(added_mutex_);
  for (RamSlot& slot : added_) {
    if (slot.range.first == first) return &slot;
  }
  return nullptr;
}

void GuestRam::Remove(Gfn first) {
  std::list<RamSlot> gone;  // freed without the lock
  std::unique_lock lock(added_mutex_);
  for (auto it = added_.begin(); it != added_.end(); ++it) {
    if (it->range.first != first) continue;
    gone.splice(gone.begin(), added_, it);
    break;
  }
  lock.unlock();
}

size_t GuestRam::added_slots() const {
  std::shared_lock lock(added_mutex_);
  return added_.size();
}

uint64_t GuestRam::added_bytes() const {
  std::shared_lock lock(added_mutex_);
  uint64_t bytes = 0;
  for (const RamSlot& slot : added_) bytes += slot.range.count << kPageShift;
  return bytes;
}

uint64_t GuestRam::allocated_bytes(MemoryKind kind) const {
  uint64_t sum = 0;
  for (const RamSlot& slot : slots_) sum += slot.pages(kind).allocated_bytes();
  std::shared_lock lock(added_mutex_);
  for (const RamSlot& slot : added_) sum += slot.pages(kind).allocated_bytes();
  return sum;
}

GuestRam::Place GuestRam::Find(Gfn gfn) {
  for (RamSlot& slot : slots_) {
    if (slot.range.Contains(gfn)) return {&slot, gfn - slot.range.first};
  }
  std::shared_lock lock(added_mutex_);
  for (RamSlot& slot : added_) {
    if (slot.range.Contains(gfn)) return {&slot, gfn - slot.range.first};
  }
  return {};
}

bool GuestRam::ForEachPiece(uint64_t gpa, uint64_t size, MemoryKind kind,
                            const std::function<void(std::byte*, uint64_t)>& piece) {
  if (gpa + size < gpa) return false;
  for (const bool count_only : {true, false}) {
    uint64_t at = gpa;
    const uint64_t end = gpa + size;
    while (at < end) {
      const Place place = Find(Gfn(at >> kPageShift));
      if (place.slot == nullptr) return false;
      Backing& pages = place.slot->pages(kind);
      const uint64_t offset = (place.frame << kPageShift) + (at & mmu::kPageOffsetMask);
      const uint64_t length = std::min(end - at, pages.size() - offset);
      if (!count_only) piece(pages.data() + offset, length);
      at += length;
    }
  }
  return true;
}

absl::Status GuestRam::Populate(GfnRange range, MemoryKind kind) {
  const auto populate = [&](RamSlot& slot) -> absl::Status {
    const GfnRange part = mmu::Intersection(range, slot.range);
    if (part.empty()) return absl::OkStatus();
    return slot.pages(kind).Allocate((part.first - slot.range.first) << kPageShift,
                                     part.count << kPageShift);
  };
  absl::Status status;
  for (RamSlot& slot : slots_) status.Update(populate(slot));
  // Nobody else keeps an added slot alive here.
  std::shared_lock lock(added_mutex_);
  for (RamSlot& slot : added_) status.Update(populate(slot));
  return status;
}

std::optional<mmu::Level> GuestRam::Ready(Gfn gfn, MemoryKind kind) {
  // Slots that come and go need a lock: their faults ask Resolve.
  for (const RamSlot& slot : slots_) {
    if (!slot.range.Contains(gfn)) continue;
    const uint64_t offset = (gfn - slot.range.first) << kPageShift;
    const Backing& pages = slot.pages(kind);
    if (commit_ == Commit::kWholeLeaves ? !pages.AreAllocated(LeafOffset(offset), kLeafBytes)
                                        : !pages.IsAllocated(offset)) {
      break;
    }
    return mmu::Level::k2M;
  }
  return std::nullopt;
}

absl::StatusOr<mmu::PageSource::Page> GuestRam::Resolve(Gfn gfn, MemoryKind kind,
                                                        mmu::Level wanted) {
  const Place place = Find(gfn);
  if (place.slot == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("no backing behind guest address 0x", absl::Hex(gfn.value << kPageShift)));
  }
  Backing& pages = place.slot->pages(kind);
  // Slots begin and end at 2 MiB and lie on 1 GiB of host physical space, so a 2M leaf always fits.
  const mmu::Pfn pfn = mmu::PfnOf(pages.hpa()) + place.frame;
  const uint64_t offset = place.frame << kPageShift;
  if (commit_ == Commit::kWholeLeaves) {
    if (wanted >= mmu::Level::k2M) {
      if (pages.Allocate(LeafOffset(offset), kLeafBytes).ok()) return Page{pfn, mmu::Level::k2M};
      leaves_without_memory_.fetch_add(1, std::memory_order_relaxed);
    }
    if (pages.IsAllocated(offset)) return Page{pfn, mmu::Level::k4K};
  }
  if (absl::Status status = pages.Allocate(offset, mmu::kPageSize); !status.ok()) return status;
  return Page{pfn, commit_ == Commit::kWholeLeaves ? mmu::Level::k4K : mmu::Level::k2M};
}

absl::Status GuestRam::Reserve(GfnRange range, MemoryKind kind) {
  const Place place = Find(range.first);
  return place.slot->pages(kind).Allocate(place.frame << kPageShift, range.count << kPageShift);
}

void GuestRam::Copy(GfnRange range, MemoryKind from, MemoryKind to) {
  const Place place = Find(range.first);
  place.slot->pages(to).CopyFrom(place.slot->pages(from), place.frame << kPageShift,
                                 range.count << kPageShift);
}

void GuestRam::Discard(GfnRange range, MemoryKind kind) {
  const Place place = Find(range.first);
  place.slot->pages(kind).Discard(place.frame << kPageShift, range.count << kPageShift);
}

absl::Status GuestRam::Move(GfnRange from, Gfn to) {
  std::unique_lock lock(added_mutex_);
  for (RamSlot& slot : added_) {
    if (!(slot.range == from)) continue;
    slot.range.first = to;
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError("the memory that a VM was made with stays where it is");
}

}  // namespace twinroot::memory
