// The walk that a processor makes through EPT tables (SDM vol. 3C, "EPT Translation Mechanism"):
// 4 or 5 levels, leaves of 4K, 2M and 1G. Thread-safe; keeps no state of its own.
//
// 1. Tables are read as they stand in physical memory, one aligned 64-bit load for each entry; they
//    may change under the walk. 2. Accessed and dirty flags are set by compare-and-swap against the
//    word that the walk has used, as a processor does: an entry that software has changed meanwhile
//    is never written, the walk starts again. 3. Only a translation that grants the access sets
//    flags, and only after the page-modification log has been found to have room. 4. The walk goes
//    on to the leaf where an upper entry lacks a right: a misconfiguration or an absence below it
//    comes first ("an access using a guest-physical address whose translation does not cause an EPT
//    misconfiguration", SDM, "EPT Violations").
#ifndef TWINROOT_MMU_VMX_EPT_WALKER_H_
#define TWINROOT_MMU_VMX_EPT_WALKER_H_

#include <cstdint>
#include <variant>

#include "mmu/hw/ept_capabilities.h"
#include "mmu/hw/ept_entry.h"
#include "mmu/hw/ept_pointer.h"
#include "mmu/hw/ept_violation.h"
#include "mmu/types/access.h"
#include "mmu/types/address.h"
#include "mmu/types/level.h"
#include "mmu/vmx/physical_memory.h"
#include "mmu/vmx/pml.h"

namespace twinroot::mmu::vmx {

// Whose access it is: the one to a linear address's translation, or the processor's own to an entry
// of the guest's paging structures on the way there.
enum class AccessTarget : uint8_t { kTranslation, kGuestPagingEntry };

struct GuestAccess {
  Gpa gpa;  // raw
  Access needed;
  // Decides which right a fetch needs under mode-based execute control.
  LinearMode mode = LinearMode::kSupervisor;
  AccessTarget target = AccessTarget::kTranslation;
  // Only reported, never checked: the guest's own paging has let the access through.
  GuestPageRights page = {};
};

// What a walk found and a TLB may keep.
struct EptTranslation {
  Hpa page;                  // where the leaf's page begins
  Level level = Level::k4K;  // of the leaf
  Access access;             // AND over the walk
  // Writes need no further walk: the dirty flag is set, or A/D flags are off.
  bool dirty = false;
  bool user_execute = false;  // the AND of bits 10; `access` says it without mode-based execute

  Hpa HpaOf(Gpa gpa) const { return page + (gpa.value & (BytesPerEntry(level) - 1)); }
};

// VM exit "EPT violation".
struct EptViolationExit {
  Gpa gpa;  // raw
  EptViolation qualification;
  // The entry that decides has bit 63 clear (SDM, "Convertible EPT Violations"): the one that is
  // not present, or the leaf. An address beyond the walk has no such entry and is not convertible.
  bool convertible = false;
};
// VM exit "EPT misconfiguration"; it has no qualification. `level` is where the walk met it.
struct EptMisconfigurationExit {
  Gpa gpa;  // raw
  Level level;
};
// VM exit "page-modification log full": a flag had to be set first and was not; nothing was
// accessed.
struct PmlFullExit {
  Gpa gpa;  // raw
};
// A table or page at a physical address where nothing is.
struct MachineCheck {
  Hpa hpa;
};
using WalkOutcome = std::variant<EptTranslation, EptViolationExit, EptMisconfigurationExit,
                                 MachineCheck, PmlFullExit>;

class EptWalker {
 public:
  // `memory` is not owned. `maxphyaddr`: width of an Hpa, 39 to 52.
  EptWalker(PhysicalMemory* memory, const EptCapabilities& capabilities, int maxphyaddr)
      : memory_(memory),
        capabilities_(capabilities),
        maxphyaddr_(maxphyaddr),
        plain_link_(maxphyaddr) {}

  // `eptp` passed the checks of VM entry (EptPointer::Valid). An address beyond the width of the
  // walk is an EPT violation that no entry allows. With a log, a dirty flag that goes from 0 to 1
  // is logged; null: no page-modification logging.
  WalkOutcome Walk(EptPointer eptp, const GuestAccess& access,
                   PageModificationLog* log = nullptr) const;
  WalkOutcome Walk(EptPointer eptp, Gpa gpa, Access needed) const {
    return Walk(eptp, GuestAccess{gpa, needed});
  }

  // What the rights must include. "If accessed and dirty flags for EPT are enabled, processor
  // accesses to guest paging-structure entries are treated as writes" (SDM, "EPT Violations").
  static Access Needed(EptPointer eptp, const GuestAccess& access) {
    return access.target == AccessTarget::kGuestPagingEntry && eptp.accessed_dirty()
               ? access.needed | Access::Write()
               : access.needed;
  }
  // A translation, cached or walked, lets the access through.
  bool Grants(const EptTranslation& translation, Access needed, LinearMode mode) const {
    if (capabilities_.mode_based_execute && mode == LinearMode::kUser && needed.fetch()) {
      return translation.user_execute;
    }
    return translation.access.Includes(needed);
  }

 private:
  // One entry that the walk went through.
  struct Step {
    uint64_t* word;
    uint64_t seen;
  };
  struct Path;

  // The leaf's translation is in `path`; false: `outcome` has what happened instead.
  bool Descend(EptPointer eptp, const GuestAccess& access, Path& path, WalkOutcome& outcome) const;
  EptViolationExit Violation(EptPointer eptp, const GuestAccess& access, Access allowed,
                             bool user_execute, bool convertible) const;

  PhysicalMemory* memory_;
  EptCapabilities capabilities_;
  int maxphyaddr_;
  EptPlainLink plain_link_;
};

}  // namespace twinroot::mmu::vmx

#endif  // TWINROOT_MMU_VMX_EPT_WALKER_H_
