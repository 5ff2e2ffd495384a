#include "daemon/vcpu/kvm/native_memory.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/vcpu/kvm/kvm_abi.h"

namespace twinroot::kvm {

using mmu::Gfn;
using mmu::GfnRange;
using mmu::kPageShift;
using mmu::Level;
using mmu::MemoryKind;

namespace {

GfnRange LeafOf(Gfn gfn) {
  constexpr uint64_t kFrames = mmu::FramesPerEntry(Level::k2M);
  return {gfn - gfn.value % kFrames, kFrames};
}

}  // namespace

absl::Status NativeMemory::Add(const Projection::Window& window, const memory::Backing& place,
                               uint32_t number) {
  CreateGuestMemfd create;
  create.size = window.mapping.size();
  KvmFd memfd = vm_->Make(kCreateGuestMemfd, &create);
  if (!memfd.valid()) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "KVM_CREATE_GUEST_MEMFD: ", std::strerror(errno), "; raise LimitNOFILE or delete VMs"));
  }
  Slot slot = {window.range, mmu::PfnOf(place.hpa()), std::move(memfd),
               std::vector<bool>(window.range.count)};
  if (absl::Status status = SetRegion(slot, window, number); !status.ok()) return status;
  std::lock_guard lock(mutex_);
  std::unique_lock change(slots_mutex_);
  slots_.push_back(std::move(slot));
  return absl::OkStatus();
}

absl::Status NativeMemory::SetRegion(const Slot& slot, const Projection::Window& window,
                                     uint32_t number) {
  UserspaceMemoryRegion2 region;
  region.slot = number;
  region.flags = kMemGuestMemfd;
  region.guest_phys_addr = window.range.first.value << kPageShift;
  region.memory_size = window.mapping.size();
  region.userspace_addr = reinterpret_cast<uintptr_t>(window.mapping.data());
  region.guest_memfd = static_cast<uint32_t>(slot.memfd.get());
  if (vm_->Ioctl(kSetUserMemoryRegion2, &region) == 0) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("KVM refuses private memory at 0x",
                                                   absl::Hex(region.guest_phys_addr), ": ",
                                                   std::strerror(errno)));
}

void NativeMemory::Forget(GfnRange range) {
  std::list<Slot> gone;  // freed without the locks
  std::lock_guard lock(mutex_);
  std::unique_lock change(slots_mutex_);
  for (auto it = slots_.begin(); it != slots_.end(); ++it) {
    if (!(it->range == range)) continue;
    gone.splice(gone.begin(), slots_, it);
    return;
  }
}

void NativeMemory::MoveSlot(GfnRange range, Gfn to) {
  trap_->MoveSlot(range, to);
  std::lock_guard lock(mutex_);
  std::unique_lock change(slots_mutex_);
  for (Slot& slot : slots_) {
    if (slot.range == range) slot.range.first = to;
  }
}

absl::Status NativeMemory::Follow(const Projection::Window& window, uint32_t number) {
  // KVM does not move what has a guest_memfd: it goes, and comes again with the same pages.
  UserspaceMemoryRegion2 none;
  none.slot = number;
  // EINVAL: it is gone already, and could not come again.
  if (vm_->Ioctl(kSetUserMemoryRegion2, &none) != 0 && errno != EINVAL) {
    return absl::ResourceExhaustedError(
        absl::StrCat("KVM keeps private memory where it was: ", std::strerror(errno)));
  }
  return SetRegion(*Find(window.range.first), window, number);
}

NativeMemory::Slot* NativeMemory::Find(Gfn gfn) {
  std::shared_lock lock(slots_mutex_);
  for (Slot& slot : slots_) {
    if (slot.range.Contains(gfn)) return &slot;
  }
  return nullptr;
}

absl::Status NativeMemory::SetAttributes(GfnRange range, bool is_private) {
  MemoryAttributes request;
  request.address = range.first.value << kPageShift;
  request.size = range.count << kPageShift;
  request.attributes = is_private ? kMemoryAttributePrivate : 0;
  int result;
  do {
    result = vm_->Ioctl(kSetMemoryAttributes, &request);
  } while (result != 0 && (errno == EINTR || errno == EAGAIN));
  if (result == 0) {
    for (Slot& slot : slots_) {
      const GfnRange part = Intersection(range, slot.range);
      if (part.empty()) continue;
      const auto begin =
          slot.is_private.begin() + static_cast<std::ptrdiff_t>(part.first - slot.range.first);
      std::fill_n(begin, part.count, is_private);
    }
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("KVM_SET_MEMORY_ATTRIBUTES: ", std::strerror(errno)));
}

absl::Status NativeMemory::Set(Gfn gfn, mmu::Level level, mmu::Access, mmu::Pfn) {
  std::lock_guard lock(mutex_);
  return SetAttributes({gfn, mmu::FramesPerEntry(level)}, true);
}

absl::Status NativeMemory::Remove(GfnRange range) {
  std::lock_guard lock(mutex_);
  const auto first = poisoned_.lower_bound(range.first);
  const auto end = poisoned_.lower_bound(range.end());
  if (first != end) {
    if (absl::Status status = trap_->Remove(range); !status.ok()) return status;
    poisoned_.erase(first, end);
  }
  // KVM zaps and flushes before it answers.
  absl::Status status = SetAttributes(range, false);
  if (status.ok()) return status;
  // To take away it first makes room for what was never set. In parts there is nothing to make:
  // each is all set, or was never.
  for (Gfn gfn = range.first; gfn < range.end(); gfn = LeafOf(gfn).end()) {
    status = SetAttributes(Intersection(LeafOf(gfn), range), false);
    if (!status.ok()) return status;
  }
  return status;
}

absl::Status NativeMemory::LetGo(Gfn gfn) {
  std::lock_guard lock(mutex_);
  const Slot* const slot = Find(gfn);
  if (slot == nullptr || !slot->is_private[gfn - slot->range.first]) {
    trap_->Wake(gfn);
    return absl::OkStatus();
  }
  poisoned_.insert(gfn);
  return trap_->Poison(gfn);
}

mmu::Level NativeMemory::LargestLeaf(Gfn gfn, MemoryKind kind) {
  return kind == MemoryKind::kShared ? ram_->LargestLeaf(gfn, kind) : mmu::Level::k2M;
}

std::optional<mmu::Level> NativeMemory::Ready(Gfn gfn, MemoryKind kind) {
  return kind == MemoryKind::kShared ? ram_->Ready(gfn, kind) : std::nullopt;
}

absl::StatusOr<mmu::PageSource::Page> NativeMemory::Resolve(Gfn gfn, MemoryKind kind,
                                                            mmu::Level wanted) {
  if (kind == MemoryKind::kShared) return ram_->Resolve(gfn, kind, wanted);
  const Slot* const slot = Find(gfn);
  if (slot == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("no private memory behind guest address 0x",
                                                      absl::Hex(gfn.value << kPageShift)));
  }
  // KVM would allocate pages by itself, and tell nobody why it could not: so all of a leaf.
  const mmu::Pfn pfn = slot->pfn + (gfn - slot->range.first);
  const auto allocate = [&](GfnRange part) {
    return slot->memfd.api().Fallocate(slot->memfd.get(), FALLOC_FL_KEEP_SIZE,
                                       (part.first - slot->range.first) << kPageShift,
                                       part.count << kPageShift) == 0;
  };
  if (wanted >= Level::k2M && allocate(LeafOf(gfn))) return Page{pfn, Level::k2M};
  if (allocate({gfn, 1})) return Page{pfn, Level::k4K};
  return absl::ResourceExhaustedError(
      absl::StrCat("the host has no memory for a private guest page: ", std::strerror(errno)));
}

absl::Status NativeMemory::Reserve(GfnRange, MemoryKind) {
  return absl::FailedPreconditionError(
      "on kvm-native nobody but the guest can copy private bytes: convert without preserve");
}

void NativeMemory::Discard(GfnRange range, MemoryKind kind) {
  if (kind == MemoryKind::kShared) return ram_->Discard(range, kind);
  const Slot* const slot = Find(range.first);
  // Aligned and inside: it cannot fail.
  slot->memfd.api().Fallocate(slot->memfd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                              (range.first - slot->range.first) << kPageShift,
                              range.count << kPageShift);
}

}  // namespace twinroot::kvm
