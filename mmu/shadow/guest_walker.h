// The walk through tables that a guest made: its paging structures, or the EPT or nested tables of
// a guest hypervisor. One walk for all formats; each format is a policy (ia32_paging.h,
// ept_paging.h).
//
// Thread-safe; keeps nothing. 1. Entries are read as they stand, one aligned word each, and may
// change under the walk. 2. Accessed and dirty flags are set by compare-and-swap against the word
// that was used: if another stands there, the walk starts again. 3. Only a translation that grants
// the access sets flags. 4. From the top down the first entry that is not present or has a reserved
// bit ends the walk; rights are judged when it is complete.
#ifndef TWINROOT_MMU_SHADOW_GUEST_WALKER_H_
#define TWINROOT_MMU_SHADOW_GUEST_WALKER_H_

#include <variant>

#include "mmu/shadow/ept_paging.h"
#include "mmu/shadow/guest_memory.h"
#include "mmu/shadow/guest_walk.h"
#include "mmu/shadow/ia32_paging.h"

namespace twinroot::mmu {

// Without paging every linear address is its own, 32 bits wide: there is nothing to walk.
inline constexpr Gpa UnpagedAddress(uint64_t linear) { return Gpa(linear & 0xFFFF'FFFF); }

GuestWalkOutcome WalkGuest(const Ia32Paging& paging, GuestMemory& memory, LinearAccess access);
GuestWalkOutcome WalkGuest(const EptPaging& paging, GuestMemory& memory, NestedAccess access);

// MOV to CR3 under PAE, VM entry, and whatever else loads the PDPTE registers (SDM vol. 3A, "PDPTE
// Registers"): all four or none.
struct PdptesMalformed {};  // #GP(0), or a failed VM entry
using LoadPdptesOutcome = std::variant<Pdptes, PdptesMalformed, GuestTableMissing>;
LoadPdptesOutcome LoadPdptes(GuestMemory& memory, uint64_t cr3, int maxphyaddr);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_SHADOW_GUEST_WALKER_H_
