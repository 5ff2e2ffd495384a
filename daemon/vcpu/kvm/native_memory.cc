#include "daemon/vcpu/kvm/native_memory.h"

#include <fcntl.h>

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
using mmu::MemoryKind;

absl::Status NativeMemory::Open(const Projection& trap, uint32_t& slot) {
  for (size_t i = 0; i < trap.windows().size(); ++i) {
    const Projection::Window& window = trap.windows()[i];
    CreateGuestMemfd create;
    create.size = window.mapping.size();
    KvmFd memfd = vm_->Make(kCreateGuestMemfd, &create);
    if (!memfd.valid()) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "KVM_CREATE_GUEST_MEMFD: ", std::strerror(errno), "; raise LimitNOFILE or delete VMs"));
    }
    UserspaceMemoryRegion2 region;
    region.slot = slot++;
    region.flags = kMemGuestMemfd;
    region.guest_phys_addr = window.range.first.value << kPageShift;
    region.memory_size = window.mapping.size();
    region.userspace_addr = reinterpret_cast<uintptr_t>(window.mapping.data());
    region.guest_memfd = static_cast<uint32_t>(memfd.get());
    if (vm_->Ioctl(kSetUserMemoryRegion2, &region) != 0) {
      return absl::ResourceExhaustedError(absl::StrCat("KVM refuses private memory at 0x",
                                                       absl::Hex(region.guest_phys_addr), ": ",
                                                       std::strerror(errno)));
    }
    // The memory of the VM is those of its slots in the same order.
    slots_.push_back(
        {window.range, mmu::PfnOf(ram_->slots()[i].private_pages.hpa()), std::move(memfd)});
  }
  return absl::OkStatus();
}

const NativeMemory::Slot* NativeMemory::Find(Gfn gfn) const {
  for (const Slot& slot : slots_) {
    if (slot.range.Contains(gfn)) return &slot;
  }
  return nullptr;
}

absl::Status NativeMemory::SetAttributes(GfnRange range, uint64_t attributes) {
  MemoryAttributes request;
  request.address = range.first.value << kPageShift;
  request.size = range.count << kPageShift;
  request.attributes = attributes;
  int result;
  do {
    result = vm_->Ioctl(kSetMemoryAttributes, &request);
  } while (result != 0 && (errno == EINTR || errno == EAGAIN));
  if (result == 0) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("KVM_SET_MEMORY_ATTRIBUTES: ", std::strerror(errno)));
}

absl::Status NativeMemory::Set(Gfn gfn, mmu::Level level, mmu::Access, mmu::Pfn) {
  return SetAttributes({gfn, mmu::FramesPerEntry(level)}, kMemoryAttributePrivate);
}

absl::Status NativeMemory::Remove(GfnRange range) {
  // KVM zaps and flushes before it answers.
  return SetAttributes(range, 0);
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
  const uint64_t frame = gfn - slot->range.first;
  // KVM would allocate it by itself, and tell nobody why it could not.
  if (slot->memfd.api().Fallocate(slot->memfd.get(), FALLOC_FL_KEEP_SIZE, frame << kPageShift,
                                  mmu::kPageSize) != 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the host has no memory for a private guest page: ", std::strerror(errno)));
  }
  return Page{slot->pfn + frame, mmu::Level::k2M};
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
