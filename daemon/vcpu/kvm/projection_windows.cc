// The windows of a projection: how they come, go, move, are given up and begin anew.
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "daemon/vcpu/kvm/projection.h"
#include "mmu/types/level.h"

namespace twinroot::kvm {

using mmu::Gfn;
using mmu::GfnRange;

absl::Status Projection::Open(memory::GuestRam& ram) {
  for (memory::RamSlot& slot : ram.slots()) {
    if (absl::Status status = AddWindow(slot.range, slot.pages(kind_)); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Projection::AddWindow(GfnRange range, const memory::Backing& pages) {
  absl::StatusOr<memory::Mapping> mapping = memory::Mapping::Shared(pages.fd(), pages.size());
  if (!mapping.ok()) return mapping.status();
  std::unique_lock use(use_);
  const auto watch = watches_writes_.load(std::memory_order_acquire) ? Userfault::Watch::kWritesToo
                                                                     : Userfault::Watch::kAccesses;
  if (absl::Status status = userfault_->Register(mapping->data(), mapping->size(), watch);
      !status.ok()) {
    return status;
  }
  const size_t blocks = pages.size() / mmu::BytesPerEntry(mmu::Level::k2M);
  std::lock_guard lock(mutex_);
  windows_.push_back({range, *std::move(mapping), pages.fd(),
                      std::vector<Block>(blocks, Block::kSmall), std::vector<bool>(blocks),
                      std::vector<uint8_t>(blocks)});
  if (revoked_.load(std::memory_order_acquire)) Revoke(windows_.back());
  return absl::OkStatus();
}

const Projection::Window* Projection::WindowAt(Gfn first) const {
  for (const Window& window : windows_) {
    if (window.range.first == first) return &window;
  }
  return nullptr;
}

void Projection::RemoveWindow(GfnRange range) {
  std::unique_lock use(use_);
  std::lock_guard lock(mutex_);
  const auto gone = [&](const Window& window) { return window.range == range; };
  const auto of_it = [&](const Spot& spot) { return gone(*spot.window); };
  std::erase_if(unsettled_spots_, of_it);
  std::erase_if(busy_spots_, of_it);
  // A thread of the kernel's own may wait there, and would for ever.
  for (const Window& window : windows_) {
    if (gone(window)) Revoke(window);
  }
  windows_.remove_if(gone);
}

void Projection::MoveSlot(GfnRange range, Gfn to) {
  std::unique_lock use(use_);
  std::lock_guard lock(mutex_);
  for (Window& window : windows_) {
    if (!(window.range == range)) continue;
    window.range.first = to;
    // Who waits there is known by the old place: it comes again, by the new one.
    userfault_->Wake(window.mapping.data(), window.mapping.size());
  }
}

void Projection::Revoke() {
  revoked_.store(true, std::memory_order_release);
  std::unique_lock use(use_);
  for (const Window& window : windows_) Revoke(window);
}

void Projection::Revoke(const Window& window) {
  Empty(window);
  // The new mapping is not watched and grants nothing. It waits for faults that are about to
  // queue themselves (they hold the old mapping's lock), so the wake below misses none.
  if (mmap(window.mapping.data(), window.mapping.size(), PROT_NONE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED) {
    // Then at least nobody waits: the access gets its page, and the guest is not entered again.
    userfault_->Unregister(window.mapping.data(), window.mapping.size());
  }
  userfault_->Wake(window.mapping.data(), window.mapping.size());
}

void Projection::Empty(const Window& window) {
  madvise(window.mapping.data(), window.mapping.size(), MADV_DONTNEED);
}

absl::Status Projection::Renew() {
  std::unique_lock use(use_);
  if (revoked_.load(std::memory_order_acquire)) return absl::OkStatus();
  for (Window& window : windows_) {
    Empty(window);
    // Nothing may be touched before it is watched.
    if (absl::Status status = window.mapping.Renew(window.fd, PROT_NONE); !status.ok()) {
      return status;
    }
    if (absl::Status status = userfault_->Register(window.mapping.data(), window.mapping.size());
        !status.ok()) {
      return status;
    }
    if (mprotect(window.mapping.data(), window.mapping.size(), PROT_READ | PROT_WRITE) != 0) {
      return absl::InternalError(absl::StrCat("mprotect: ", std::strerror(errno)));
    }
  }
  watches_writes_.store(false, std::memory_order_release);
  needs_renewal_.store(false, std::memory_order_release);
  std::lock_guard lock(mutex_);
  for (Window& window : windows_) {
    window.blocks.assign(window.blocks.size(), Block::kSmall);
    window.listed.assign(window.listed.size(), false);
  }
  unsettled_spots_.clear();
  busy_spots_.clear();
  ++counts_.renewals;
  return absl::OkStatus();
}

}  // namespace twinroot::kvm
