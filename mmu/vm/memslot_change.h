// The changes of memslots (behaviours F7, D1): each is one Invalidation, and nothing can fail after
// its first visible step but an external table, which bugs the VM (kInternal).
//
// Thread-safe: changes take turns; faults never wait. A fault beside a change maps what held before
// and is zapped, or retries. Whatever a fault found out of a slot that is gone (its page too) is
// compared with the invalidation sequence before it is used.
//
// When RemoveMemslot returns, the caller may drop the slot's backing: no mapping and no cached
// translation leads there (zapped, flushed, removed from external tables), no fault can publish one
// (its check of the sequence fails), no turn-holder copies or discards there (it held the turn),
// and no PageSource::Resolve for a frame of the slot is still running (waited for, after the turn).
#ifndef TWINROOT_MMU_VM_MEMSLOT_CHANGE_H_
#define TWINROOT_MMU_VM_MEMSLOT_CHANGE_H_

#include "absl/status/status.h"
#include "mmu/vm/address_space_state.h"

namespace twinroot::mmu {

// Outside of memslots memory is shared and nothing is denied; a new slot is private.
inline constexpr MemoryAttributes kOutsideSlots{MemoryKind::kShared, Access::None()};
inline constexpr MemoryAttributes kNewSlot{MemoryKind::kPrivate, Access::None()};

// As GuestAddressSpace says.
absl::Status AddMemslot(AddressSpaceState& vm, const Memslot& slot);
absl::Status RemoveMemslot(AddressSpaceState& vm, Gfn first);
absl::Status MoveMemslot(AddressSpaceState& vm, Gfn first, Gfn new_first);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_MEMSLOT_CHANGE_H_
