// How guest memory comes to KVM, and how it comes, goes and moves while the machine lives.
#include <linux/kvm.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "daemon/vcpu/kvm/kvm_machine_impl.h"

namespace twinroot::kvm {

using mmu::MemoryKind;

absl::Status KvmMachine::AddRegions(const memory::RamSlot& slot, const uint32_t (&numbers)[2]) {
  for (const MemoryKind kind : mmu::kAllKinds) {
    const Projection::Window* const window = projection(kind).WindowAt(slot.range.first);
    const uint32_t number = numbers[static_cast<size_t>(kind)];
    absl::Status status = native_.has_value() && kind == MemoryKind::kPrivate
                              ? native_->Add(*window, slot.private_pages, number)
                              : SetRegion(number, kind, *window);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status KvmMachine::SetRegion(uint32_t number, MemoryKind kind,
                                   const Projection::Window& window) {
  kvm_userspace_memory_region region = {};
  region.slot = number;
  region.guest_phys_addr = layout_.GpaOf(window.range.first, kind).value;
  region.memory_size = window.mapping.size();
  region.userspace_addr = reinterpret_cast<uintptr_t>(window.mapping.data());
  if (vm_.Ioctl(KVM_SET_USER_MEMORY_REGION, &region) == 0) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "KVM refuses memory at 0x", absl::Hex(region.guest_phys_addr), ": ", std::strerror(errno)));
}

// A memslot of KVM's changes when nobody is inside KVM any more, and who waits in a fault is.
absl::Status KvmMachine::Still(absl::FunctionRef<absl::Status()> change) {
  const auto waits = [] {
    return absl::UnavailableError(
        "a vCPU waits in an access to memory: decide the conversion that it waits for, harvest a "
        "full dirty log, resume the VM if it is paused, then try again");
  };
  // To look before saves a pause, to look after is sure.
  if (gate_.AnyHeld() && !stop_.load(std::memory_order_acquire)) return waits();
  std::lock_guard no_start(start_mutex_);
  std::lock_guard no_prefault(prefault_mutex_);
  Pause();
  const bool still = !gate_.AnyHeld() || stop_.load(std::memory_order_acquire);
  absl::Status status = still ? change() : waits();
  Resume();
  return status;
}

absl::Status KvmMachine::AddMemory(mmu::GfnRange range) {
  memory::RamSlot& slot = *ram_->Added(range.first);
  Regions regions = {range, {}};
  for (uint32_t& number : regions.slots) number = TakeNumber();
  added_.push_back(regions);
  absl::Status status;
  for (const MemoryKind kind : mmu::kAllKinds) {
    if (status.ok()) status = projection(kind).AddWindow(range, slot.pages(kind));
  }
  if (status.ok()) status = AddRegions(slot, regions.slots);
  if (!status.ok()) RemoveMemory(range);
  return status;
}

void KvmMachine::RemoveMemory(mmu::GfnRange range) {
  for (const Regions& regions : added_) {
    if (!(regions.range == range)) continue;
    for (const uint32_t number : regions.slots) {
      kvm_userspace_memory_region region = {};
      region.slot = number;
      // EINVAL: it was not there, since its making had failed.
      if (vm_.Ioctl(KVM_SET_USER_MEMORY_REGION, &region) != 0 && errno != EINVAL) {
        client_->OnFatal(vcpu::StopReason::kBackendError,
                         absl::StrCat("KVM keeps memory that was removed: ", std::strerror(errno)));
      }
      free_numbers_.push_back(number);
    }
  }
  added_.remove_if([&](const Regions& regions) { return regions.range == range; });
  if (native_.has_value()) native_->Forget(range);
  for (const MemoryKind kind : mmu::kAllKinds) projection(kind).RemoveWindow(range);
}

absl::Status KvmMachine::MoveMemory(mmu::GfnRange range, mmu::Gfn to) {
  absl::Status status;
  for (Regions& regions : added_) {
    if (!(regions.range == range)) continue;
    regions.range.first = to;
    for (const MemoryKind kind : mmu::kAllKinds) {
      const uint32_t number = regions.slots[static_cast<size_t>(kind)];
      const Projection::Window& window = *projection(kind).WindowAt(to);
      status.Update(native_.has_value() && kind == MemoryKind::kPrivate
                        ? native_->Follow(window, number)
                        : SetRegion(number, kind, window));
    }
    break;
  }
  return status;
}

uint32_t KvmMachine::TakeNumber() {
  if (free_numbers_.empty()) return next_number_++;
  const uint32_t number = free_numbers_.back();
  free_numbers_.pop_back();
  return number;
}

}  // namespace twinroot::kvm
