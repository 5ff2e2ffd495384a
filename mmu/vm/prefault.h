// Populating memory without a vCPU (behaviours D9, A7, A8): the fault walk, page by page, for an
// access that needs nothing.
//
// Thread-safe, and beside faults and changes: a page that changes meanwhile is looked at again.
#ifndef TWINROOT_MMU_VM_PREFAULT_H_
#define TWINROOT_MMU_VM_PREFAULT_H_

#include <cstdint>
#include <functional>
#include <optional>

#include "absl/status/statusor.h"
#include "mmu/vm/address_space_state.h"

namespace twinroot::mmu {

// As GuestAddressSpace says.
absl::StatusOr<PrefaultResult> Prefault(AddressSpaceState& vm, GfnRange range,
                                        std::optional<MemoryKind> kind,
                                        const std::function<bool(uint64_t)>& progress);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_PREFAULT_H_
