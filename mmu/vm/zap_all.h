// Zap-all-fast (behaviour F7): every mapping of the VM goes in a time that does not depend on how
// much is mapped; its tables are taken down later, some at a time.
//
// Thread-safe: changes take turns. Faults meanwhile retry and build new tables.
#ifndef TWINROOT_MMU_VM_ZAP_ALL_H_
#define TWINROOT_MMU_VM_ZAP_ALL_H_

#include <cstddef>

#include "absl/status/status.h"
#include "mmu/vm/address_space_state.h"

namespace twinroot::mmu {

// As GuestAddressSpace says.
absl::Status ZapAll(AddressSpaceState& vm);
size_t ReclaimTables(AddressSpaceState& vm, size_t max_tables);

// Frees the tables that hold nothing, if any were left since the last time; returns how many.
size_t PruneAll(const Turn& turn, AddressSpaceState& vm);

// Frees those of the range in one root, unless somebody changes something right now.
void PruneIfIdle(AddressSpaceState& vm, const Root& root, GfnRange range);

// Takes down so many of those that wait; where the pool has fewer still, PruneAll.
void MakeRoom(const Turn& turn, AddressSpaceState& vm, size_t tables);

// Pool::Preload; when the pool has too few tables, those that wait to be taken down go first, then
// those that hold nothing. Waits for the turn then, so not inside a guard and not with the turn.
absl::Status PreloadTables(AddressSpaceState& vm, size_t count, PreloadedTables& preload);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_ZAP_ALL_H_
