// Where memslots come, go and move while a VM lives: their backing, their place in the physical map
// and the engine's slot stay one.
//
// Thread-safe; changes take turns, and each finds the vCPUs standing still where the machine needs
// that. A backing goes only when the engine says that nothing uses it.
#ifndef TWINROOT_DAEMON_HOST_MEMSLOT_DESK_H_
#define TWINROOT_DAEMON_HOST_MEMSLOT_DESK_H_

#include <functional>
#include <mutex>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "daemon/host/vm_registry.h"
#include "daemon/memory/guest_ram.h"
#include "daemon/memory/hpa_space.h"
#include "daemon/memory/physical_map.h"
#include "daemon/vcpu/machine.h"
#include "mmu/vm/guest_address_space.h"

namespace twinroot::host {

class MemslotDesk {
 public:
  // That many slots may be added, and as much memory as the VM was made with.
  static constexpr uint64_t kMaxAdded = kMaxAddedMemslots;

  // Not owned; must outlive the desk. `fatal` ends the VM.
  MemslotDesk(std::string vm, mmu::GuestAddressSpace* engine, vcpu::Machine* machine,
              memory::GuestRam* ram, memory::PhysicalMap* physical_map, memory::HpaSpace* hpa_space,
              std::function<void(std::string)> fatal);

  // As memory.proto says; bounds are multiples of 2 MiB. kUnavailable: a vCPU does not stand still.
  // What Add would answer, but for want of memory.
  absl::Status CheckAdd(mmu::GfnRange range);
  absl::Status Add(mmu::GfnRange range);
  absl::Status Remove(mmu::Gfn first);
  absl::Status Move(mmu::Gfn first, mmu::Gfn new_first);

 private:
  // The rest needs turn_.
  absl::Status CheckAdded(mmu::Gfn first) const;
  absl::Status CheckRoom(mmu::GfnRange range) const;
  absl::Status CheckPlace(mmu::GfnRange range) const;
  // Takes turn_, and lets others have theirs while it waits for a vCPU.
  absl::Status Still(absl::FunctionRef<absl::Status()> change);
  // The engine knows it no more.
  void Forget(mmu::Gfn first);

  const std::string vm_;
  mmu::GuestAddressSpace* const engine_;
  vcpu::Machine* const machine_;
  memory::GuestRam* const ram_;
  memory::PhysicalMap* const physical_map_;
  memory::HpaSpace* const hpa_space_;
  const std::function<void(std::string)> fatal_;
  std::mutex turn_;
};

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_MEMSLOT_DESK_H_
