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

absl::StatusOr<std::unique_ptr<GuestRam>> GuestRam::Create(uint64_t bytes, HpaSpace* space) {
  std::unique_ptr<GuestRam> ram(new GuestRam(bytes));
  auto add = [&](uint64_t base, uint64_t size) -> absl::Status {
    absl::StatusOr<Backing> private_pages = Backing::Create("twinroot-private", size, space);
    if (!private_pages.ok()) return private_pages.status();
    absl::StatusOr<Backing> shared_pages = Backing::Create("twinroot-shared", size, space);
    if (!shared_pages.ok()) return shared_pages.status();
    ram->slots_.push_back({{Gfn(base >> kPageShift), size >> kPageShift},
                           *std::move(private_pages),
                           *std::move(shared_pages)});
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
  for (const RamSlot& slot : slots_) {
    memslots.push_back(
        {slot.range, mmu::PfnOf(slot.private_pages.hpa()), mmu::PfnOf(slot.shared_pages.hpa())});
  }
  return memslots;
}

uint64_t GuestRam::allocated_bytes(MemoryKind kind) const {
  uint64_t sum = 0;
  for (const RamSlot& slot : slots_) sum += slot.pages(kind).allocated_bytes();
  return sum;
}

RamSlot* GuestRam::Find(Gfn gfn) {
  for (RamSlot& slot : slots_) {
    if (slot.range.Contains(gfn)) return &slot;
  }
  return nullptr;
}

bool GuestRam::ForEachPiece(uint64_t gpa, uint64_t size, MemoryKind kind,
                            const std::function<void(std::byte*, uint64_t)>& piece) {
  if (gpa + size < gpa) return false;
  for (const bool count_only : {true, false}) {
    uint64_t at = gpa;
    const uint64_t end = gpa + size;
    while (at < end) {
      RamSlot* slot = Find(Gfn(at >> kPageShift));
      if (slot == nullptr) return false;
      const uint64_t base = slot->range.first.value << kPageShift;
      const uint64_t length = std::min(end, slot->range.end().value << kPageShift) - at;
      if (!count_only) piece(slot->pages(kind).data() + (at - base), length);
      at += length;
    }
  }
  return true;
}

absl::StatusOr<mmu::PageSource::Page> GuestRam::Resolve(Gfn gfn, MemoryKind kind) {
  RamSlot* slot = Find(gfn);
  if (slot == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("no backing behind guest address 0x", absl::Hex(gfn.value << kPageShift)));
  }
  const uint64_t frame = gfn - slot->range.first;
  Backing& pages = slot->pages(kind);
  if (absl::Status status = pages.Allocate(frame << kPageShift, mmu::kPageSize); !status.ok()) {
    return status;
  }
  // Slots begin and end at 2 MiB and lie on 1 GiB of host physical space, so a 2M leaf always fits;
  // its other frames are allocated when they are first touched.
  return Page{mmu::PfnOf(pages.hpa()) + frame, mmu::Level::k2M};
}

absl::Status GuestRam::Reserve(GfnRange range, MemoryKind kind) {
  RamSlot* slot = Find(range.first);
  return slot->pages(kind).Allocate((range.first - slot->range.first) << kPageShift,
                                    range.count << kPageShift);
}

void GuestRam::Copy(GfnRange range, MemoryKind from, MemoryKind to) {
  RamSlot* slot = Find(range.first);
  slot->pages(to).CopyFrom(slot->pages(from), (range.first - slot->range.first) << kPageShift,
                           range.count << kPageShift);
}

void GuestRam::Discard(GfnRange range, MemoryKind kind) {
  RamSlot* slot = Find(range.first);
  slot->pages(kind).Discard((range.first - slot->range.first) << kPageShift,
                            range.count << kPageShift);
}

}  // namespace twinroot::memory
