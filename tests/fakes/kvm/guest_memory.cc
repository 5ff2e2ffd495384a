#include "tests/fakes/kvm/guest_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <utility>

#include "tests/fakes/kvm/host_access.h"

namespace twinroot::kvm::fake {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint32_t kSlotIds = 32764;
constexpr uint32_t kSlotFlags = KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY | kMemGuestMemfd;

bool Aligned(uint64_t value) { return value % kPage == 0; }
bool Overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size) {
  return a < b + b_size && b < a + a_size;
}

using Interrupted = std::function<bool()>;

bool FromHost(uint64_t hva, void* data, size_t size, const Interrupted& interrupted) {
  return ReadHost(reinterpret_cast<const void*>(hva), data, size, interrupted);
}
bool ToHost(uint64_t hva, const void* data, size_t size, const Interrupted& interrupted) {
  return WriteHost(reinterpret_cast<void*>(hva), data, size, interrupted);
}

}  // namespace

std::shared_ptr<GuestMemfd> GuestMemfd::Create(const GuestMemory* vm, uint64_t size) {
  const int fd = memfd_create("fake-guest-memfd", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, static_cast<off_t>(size)) != 0) {
    close(fd);
    return nullptr;
  }
  auto pages = memory::Mapping::Shared(fd, size);
  if (!pages.ok()) {
    close(fd);
    return nullptr;
  }
  return std::shared_ptr<GuestMemfd>(new GuestMemfd(vm, size, fd, *std::move(pages)));
}

GuestMemfd::~GuestMemfd() { close(fd_); }

int GuestMemfd::Fallocate(int mode, uint64_t offset, uint64_t length) {
  if (mode != FALLOC_FL_KEEP_SIZE && mode != (FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE)) {
    return -EOPNOTSUPP;
  }
  if (length == 0 || !Aligned(offset) || !Aligned(length)) return -EINVAL;
  if ((mode & FALLOC_FL_PUNCH_HOLE) == 0) {
    if (offset + length > size_) return -EINVAL;
  } else {
    if (offset >= size_) return 0;
    length = std::min(length, size_ - offset);
  }
  return fallocate(fd_, mode, static_cast<off_t>(offset), static_cast<off_t>(length)) == 0 ? 0
                                                                                           : -errno;
}

uint64_t GuestMemfd::allocated_bytes() const {
  struct stat info;
  return fstat(fd_, &info) == 0 ? static_cast<uint64_t>(info.st_blocks) * 512 : 0;
}

int GuestMemory::CheckNew(uint32_t id, const Slot& slot,
                          const std::shared_ptr<GuestMemfd>& guest_memfd) const {
  const auto old = slots_.find(id);
  if (old != slots_.end()) {
    if (((old->second.flags | slot.flags) & kMemGuestMemfd) != 0) return -EINVAL;
    if (old->second.size != slot.size || old->second.hva != slot.hva) return -EINVAL;
  }
  if ((slot.flags & kMemGuestMemfd) != 0) {
    if (guest_memfd == nullptr || guest_memfd->vm() != this || !Aligned(slot.offset) ||
        slot.offset + slot.size < slot.offset || slot.offset + slot.size > guest_memfd->size()) {
      return -EINVAL;
    }
  }
  for (const auto& [other_id, other] : slots_) {
    if (other_id == id || other_id >> 16 != id >> 16) continue;
    if (Overlap(other.gpa, other.size, slot.gpa, slot.size)) return -EEXIST;
    if (guest_memfd != nullptr && other.private_pages.lock() == guest_memfd &&
        Overlap(other.offset, other.size, slot.offset, slot.size)) {
      return -EINVAL;
    }
  }
  return 0;
}

int GuestMemory::SetRegion(const UserspaceMemoryRegion2& region,
                           std::shared_ptr<GuestMemfd> guest_memfd) {
  const uint32_t address_space = region.slot >> 16;
  if ((region.flags & ~kSlotFlags) != 0 || address_space > (protected_ ? 0 : 1) ||
      (region.slot & 0xffff) >= kSlotIds || !Aligned(region.memory_size) ||
      !Aligned(region.guest_phys_addr) || !Aligned(region.userspace_addr) ||
      region.guest_phys_addr + region.memory_size < region.guest_phys_addr) {
    return -EINVAL;
  }
  const bool wants_private = (region.flags & kMemGuestMemfd) != 0;
  if (wants_private && (!protected_ || (region.flags & ~kMemGuestMemfd) != 0)) return -EINVAL;
  // Waits for accesses that are under way, like the real one.
  std::unique_lock lock(slots_mutex_);
  if (region.memory_size == 0) return slots_.erase(region.slot) != 0 ? 0 : -EINVAL;
  Slot slot;
  slot.gpa = region.guest_phys_addr;
  slot.size = region.memory_size;
  slot.hva = region.userspace_addr;
  slot.flags = region.flags;
  if (wants_private) {
    slot.offset = region.guest_memfd_offset;
    slot.private_pages = guest_memfd;
  } else {
    guest_memfd.reset();
  }
  if (const int error = CheckNew(region.slot, slot, guest_memfd); error != 0) return error;
  slots_[region.slot] = slot;
  return 0;
}

int GuestMemory::SetAttributes(const MemoryAttributes& request) {
  const uint64_t known = protected_ ? kMemoryAttributePrivate : 0;
  if (request.flags != 0 || (request.attributes & ~known) != 0 || request.size == 0 ||
      !Aligned(request.address) || !Aligned(request.size) ||
      request.address + request.size < request.address) {
    return -EINVAL;
  }
  uint64_t begin = request.address;
  uint64_t end = begin + request.size;
  std::unique_lock lock(attributes_mutex_);
  // Take the range out of what is private, then put it back whole.
  auto at = private_.upper_bound(begin);
  if (at != private_.begin()) --at;
  while (at != private_.end() && at->first < end) {
    const auto [first, last] = *at;
    if (last <= begin) {
      ++at;
      continue;
    }
    at = private_.erase(at);
    if (first < begin) private_[first] = begin;
    if (last > end) private_[end] = last;
  }
  if (request.attributes != 0) private_[begin] = end;
  return 0;
}

const GuestMemory::Slot* GuestMemory::Find(uint64_t gpa) const {
  for (const auto& [id, slot] : slots_) {
    if (id >> 16 == 0 && gpa - slot.gpa < slot.size) return &slot;
  }
  return nullptr;
}

bool GuestMemory::HasSlot(uint64_t gpa) const {
  std::shared_lock lock(slots_mutex_);
  return Find(gpa) != nullptr;
}

bool GuestMemory::IsPrivate(uint64_t gpa) const {
  const auto after = private_.upper_bound(gpa);
  return after != private_.begin() && std::prev(after)->second > gpa;
}

GuestMemory::Outcome GuestMemory::TouchPrivate(const Slot* slot, uint64_t gpa, void* data,
                                               size_t size, Access access,
                                               const Interrupted& interrupted) {
  const std::shared_ptr<GuestMemfd> pages = slot != nullptr ? slot->private_pages.lock() : nullptr;
  if (pages == nullptr) return {Result::kMemoryFault, kMemoryFaultPrivate};
  const uint64_t at = reinterpret_cast<uintptr_t>(pages->data()) + slot->offset + (gpa - slot->gpa);
  const bool done = access == Access::kRead ? FromHost(at, data, size, interrupted)
                                            : ToHost(at, data, size, interrupted);
  return {done ? Result::kDone : Result::kStopped};
}

GuestMemory::Outcome GuestMemory::Touch(uint64_t gpa, void* data, size_t size, Access access,
                                        const Interrupted& interrupted) {
  std::shared_lock slots(slots_mutex_);
  const Slot* const slot = Find(gpa);
  for (;;) {
    std::shared_lock attributes(attributes_mutex_);
    const bool is_private = IsPrivate(gpa);
    if (slot != nullptr && (slot->flags & kMemGuestMemfd) != 0 &&
        races_.load(std::memory_order_relaxed) > 0 && races_.fetch_sub(1) > 0) {
      return {Result::kMemoryFault, is_private ? 0 : kMemoryFaultPrivate};
    }
    if (is_private) return TouchPrivate(slot, gpa, data, size, access, interrupted);
    if (slot == nullptr) return {Result::kMmio};
    const bool write = access == Access::kWrite;
    if (write && (slot->flags & KVM_MEM_READONLY) != 0) return {Result::kMmio};
    const uint64_t hva = slot->hva + (gpa - slot->gpa);
    if ((slot->flags & kMemGuestMemfd) == 0) {  // attributes can change nothing here
      attributes.unlock();
      const bool done =
          write ? ToHost(hva, data, size, interrupted) : FromHost(hva, data, size, interrupted);
      return {done ? Result::kDone : Result::kStopped};
    }
    // The page is fetched first, which may block; the access is made if it is still the right one.
    attributes.unlock();
    uint8_t byte;
    if (!FromHost(hva, &byte, 1, interrupted)) return {Result::kStopped};
    attributes.lock();
    if (IsPrivate(gpa)) continue;
    const bool done =
        write ? ToHost(hva, data, size, interrupted) : FromHost(hva, data, size, interrupted);
    return {done ? Result::kDone : Result::kStopped};
  }
}

}  // namespace twinroot::kvm::fake
