// The walk that a processor makes through EPT tables (SDM vol. 3C, "EPT Translation Mechanism"):
// 4 or 5 levels, leaves of 4K, 2M and 1G. Thread-safe; keeps no state of its own.
//
// 1. Tables are read as they stand in physical memory, one aligned 64-bit load for each entry; they
//    may change under the walk. 2. Accessed and dirty flags are set by compare-and-swap against the
//    word that the walk has used, as a processor does: an entry that software has changed meanwhile
//    is never written, the walk starts again. 3. Only a translation that grants the access sets
//    flags. 4. Fetches are those of supervisor mode where mode-based execute control is on.
#ifndef TWINROOT_MMU_VMX_EPT_WALKER_H_
#define TWINROOT_MMU_VMX_EPT_WALKER_H_

#include <optional>
#include <variant>

#include "mmu/hw/ept_capabilities.h"
#include "mmu/hw/ept_pointer.h"
#include "mmu/hw/ept_violation.h"
#include "mmu/types/access.h"
#include "mmu/types/address.h"
#include "mmu/types/level.h"
#include "mmu/vmx/physical_memory.h"

namespace twinroot::mmu::vmx {

// What a walk found and a TLB may keep.
struct EptTranslation {
  Hpa page;                  // where the leaf's page begins
  Level level = Level::k4K;  // of the leaf
  Access access;             // AND over the walk
  // Writes need no further walk: the dirty flag is set, or A/D flags are off.
  bool dirty = false;

  Hpa HpaOf(Gpa gpa) const { return page + (gpa.value & (BytesPerEntry(level) - 1)); }
};

// VM exit "EPT violation".
struct EptViolationExit {
  Gpa gpa;  // raw
  EptViolation qualification;
};
// VM exit "EPT misconfiguration"; it has no qualification. `level` is where the walk met it.
struct EptMisconfigurationExit {
  Gpa gpa;  // raw
  Level level;
};
// A table or page at a physical address where nothing is.
struct MachineCheck {
  Hpa hpa;
};
using WalkOutcome =
    std::variant<EptTranslation, EptViolationExit, EptMisconfigurationExit, MachineCheck>;

class EptWalker {
 public:
  // `memory` is not owned. `maxphyaddr`: width of an Hpa.
  EptWalker(PhysicalMemory* memory, const EptCapabilities& capabilities, int maxphyaddr)
      : memory_(memory), capabilities_(capabilities), maxphyaddr_(maxphyaddr) {}

  // `eptp` passed the checks of VM entry (EptPointer::Valid). An address beyond the width of the
  // walk is an EPT violation that no entry allows.
  WalkOutcome Walk(EptPointer eptp, Gpa gpa, Access needed) const;

 private:
  // nullopt: an entry changed before its flags could be set; walk again.
  std::optional<WalkOutcome> TryWalk(EptPointer eptp, Gpa gpa, Access needed) const;

  PhysicalMemory* memory_;
  EptCapabilities capabilities_;
  int maxphyaddr_;
};

}  // namespace twinroot::mmu::vmx

#endif  // TWINROOT_MMU_VMX_EPT_WALKER_H_
