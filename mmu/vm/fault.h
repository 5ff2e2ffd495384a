// An access that its tables do not allow, and what becomes of it. Plain values.
#ifndef TWINROOT_MMU_VM_FAULT_H_
#define TWINROOT_MMU_VM_FAULT_H_

#include <cstdint>
#include <variant>

#include "absl/status/status.h"
#include "mmu/types/access.h"
#include "mmu/types/address.h"
#include "mmu/types/level.h"
#include "mmu/types/memory_kind.h"
#include "mmu/vm/shadow_fault.h"

namespace twinroot::mmu {

// An EPT violation: the raw address, and what the access needed (from the exit qualification).
struct Fault {
  Gpa gpa;
  Access access;
  uint32_t vcpu = 0;  // who faults: whose dirty ring is filled
};

// What became of a fault.
// Mapped by this call: go on.
struct Fixed {
  Level level;
};
// Was mapped already: go on.
struct Spurious {};
// A change is under way: run the vCPU again.
struct Retry {};
// No memslot there; the address is unaliased.
struct Mmio {
  Gpa gpa;
};
// The page is of the other kind, or has no backing of the kind that was asked for (D1, D2).
struct MemoryFaultExit {
  Gpa gpa;            // page-aligned, unaliased (A9)
  uint64_t size;      // 4096
  MemoryKind wanted;  // what the guest asked for
  Access denied;      // none: the page is of the other kind; else what its attributes (D11) or its
                      // alias (A10) deny of this access
};
// The page is not here yet (F13). The vCPU waits until PageReady names it; where `may_tell`, the
// guest may be told instead and do something else meanwhile.
struct PagePending {
  Gpa gpa;  // page-aligned, unaliased
  bool may_tell;
};
// The vCPU's dirty ring is nearly full: it waits for HarvestDirtyRing, then tries again.
struct DirtyRingFull {};
// The environment: no page, no table; or the VM is bugged.
struct Failed {
  absl::Status status;
};
using FaultOutcome =
    std::variant<Fixed, Spurious, Retry, Mmio, MemoryFaultExit, PagePending, DirtyRingFull, Failed>;

// What became of a fault on shadow tables. GuestPageFault: the guest's own, with the error code
// that it gets. FaultOutcome: as of an EPT violation; nothing is mapped by it.
using ShadowFaultOutcome = std::variant<ShadowRunOn, ShadowWriteMade, GuestPageFault, FaultOutcome>;

// What became of an EPT misconfiguration. CachedMmio: as Mmio, known from an MMIO mark.
struct CachedMmio {
  Gpa gpa;  // unaliased
};
using MmioOutcome = std::variant<CachedMmio, Retry, Failed>;

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_FAULT_H_
