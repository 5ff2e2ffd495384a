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

// Why there is neither a dump nor a translation by guest-physical address: a guest on shadow
// tables.
inline absl::Status NoTablesByAddress() {
  return absl::FailedPreconditionError(
      "this VM's guest runs on shadow tables, which go by its linear addresses: no table of ours "
      "has guest-physical ones; use a VM with mmu tdp");
}

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_TABLE_DUMP_H_
