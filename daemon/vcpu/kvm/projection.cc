#include "daemon/vcpu/kvm/projection.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace twinroot::kvm {

using mmu::Gfn;
using mmu::GfnRange;
using mmu::kPageShift;

absl::Status Projection::Open(memory::GuestRam& ram) {
  for (memory::RamSlot& slot : ram.slots()) {
    const memory::Backing& pages = slot.pages(kind_);
    absl::StatusOr<memory::Mapping> mapping = memory::Mapping::Shared(pages.fd(), pages.size());
    if (!mapping.ok()) return mapping.status();
    if (absl::Status status = userfault_->Register(mapping->data(), mapping->size());
        !status.ok()) {
      return status;
    }
    windows_.push_back({slot.range, *std::move(mapping)});
  }
  return absl::OkStatus();
}

std::optional<Gfn> Projection::GfnAt(uint64_t address) const {
  for (const Window& window : windows_) {
    const uint64_t offset = address - reinterpret_cast<uintptr_t>(window.mapping.data());
    if (offset < window.mapping.size()) return window.range.first + (offset >> kPageShift);
  }
  return std::nullopt;
}

std::byte* Projection::AddressOf(Gfn gfn) const {
  for (const Window& window : windows_) {
    if (window.range.Contains(gfn)) {
      return window.mapping.data() + ((gfn - window.range.first) << kPageShift);
    }
  }
  return nullptr;
}

void Projection::Wake(Gfn gfn) {
  if (std::byte* address = AddressOf(gfn)) userfault_->Wake(address, mmu::kPageSize);
}

void Projection::Revoke() {
  for (const Window& window : windows_) {
    // The new mapping is not watched and grants nothing. It waits for faults that are about to
    // queue themselves (they hold the old mapping's lock), so the wake below misses none.
    mmap(window.mapping.data(), window.mapping.size(), PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    userfault_->Wake(window.mapping.data(), window.mapping.size());
  }
}

absl::Status Projection::Set(Gfn gfn, mmu::Level level, mmu::Access, mmu::Pfn) {
  std::byte* const address = AddressOf(gfn);
  if (address == nullptr) return absl::InternalError("leaf outside every window");
  return userfault_->Continue(address, mmu::BytesPerEntry(level));
}

absl::Status Projection::Remove(GfnRange range) {
  for (const Window& window : windows_) {
    const GfnRange part = mmu::Intersection(range, window.range);
    if (part.empty()) continue;
    // The pages stay in the memfd; the kernel makes KVM drop its entries before this returns.
    if (madvise(AddressOf(part.first), part.count << kPageShift, MADV_DONTNEED) != 0) {
      return absl::InternalError(
          absl::StrCat("cannot take pages away from the guest: ", std::strerror(errno)));
    }
  }
  return absl::OkStatus();
}

}  // namespace twinroot::kvm
