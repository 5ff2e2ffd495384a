// The tables of one root as they lie in memory, for people who look for a fault of the engine's.
// Thread-safe: takes one Turn.
#ifndef TWINROOT_MMU_VM_TABLE_DUMP_H_
#define TWINROOT_MMU_VM_TABLE_DUMP_H_

#include <vector>

#include "absl/status/statusor.h"
#include "mmu/vm/address_space_state.h"
#include "mmu/vm/guest_address_space.h"

namespace twinroot::mmu {

absl::StatusOr<std::vector<TableImage>> DumpTables(AddressSpaceState& vm, MemoryKind root,
                                                   const TableImage* after, size_t max);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_TABLE_DUMP_H_
