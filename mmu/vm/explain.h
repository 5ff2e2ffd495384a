// One address, looked up as the tables stand, and why its page is as large as it is.
#ifndef TWINROOT_MMU_VM_EXPLAIN_H_
#define TWINROOT_MMU_VM_EXPLAIN_H_

#include "absl/status/statusor.h"
#include "mmu/vm/address_space_state.h"

namespace twinroot::mmu {

// Thread-safe, never blocks, changes nothing. Beside a change each part of the answer is old or new
// for itself. kInvalidArgument: stolen or reserved bits, or an alias that the VM does not have.
absl::StatusOr<Translation> TranslateAndExplain(const AddressSpaceState& vm, Gpa gpa,
                                                MemoryKind alias, bool execute_only);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_EXPLAIN_H_
