// What a vCPU on shadow tables tells the engine, and what becomes of it. Plain values.
#ifndef TWINROOT_MMU_VM_SHADOW_FAULT_H_
#define TWINROOT_MMU_VM_SHADOW_FAULT_H_

#include <cstdint>
#include <variant>

#include "mmu/hw/control_registers.h"
#include "mmu/shadow/guest_walk.h"
#include "mmu/shadow/guest_walker.h"
#include "mmu/shadow/ia32_paging.h"
#include "mmu/types/address.h"

namespace twinroot::mmu {

// How the guest of one vCPU translates. CR0.PG clear: a linear address is the guest-physical one,
// at full width. PDPTEs count under PAE only.
struct GuestPaging {
  ControlRegisters registers;
  Pdptes pdptes = {};
  bool on() const { return registers.cr0 & ControlRegisters::kCr0Pg; }
  // What of a linear address is translated: the guest's width.
  uint64_t LinearMask() const {
    if (!on()) return ~uint64_t{0};
    switch (registers.mode()) {
      case PagingMode::k5Level:
        return (uint64_t{1} << 57) - 1;
      case PagingMode::k4Level:
        return (uint64_t{1} << 48) - 1;
      default:
        return 0xFFFF'FFFF;
    }
  }
};

// A page fault on shadow tables. The address passed what comes before paging.
struct ShadowFault {
  LinearAccess access;
  uint32_t vcpu = 0;
  // Of a write, for those that are made by hand: 1, 2, 4 or 8 bytes, aligned.
  int bytes = 0;
  uint64_t value = 0;
};

// Mapped, or it was: run on, from this root, which may be another one.
struct ShadowRunOn {
  Hpa root;
};
// The write was made; the instruction is done.
struct ShadowWriteMade {};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_SHADOW_FAULT_H_
