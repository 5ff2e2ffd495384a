// The memslots of one VM, ordered by frame.
//
// Read under the MMU lock, changed under Exclusive. 1. Slots do not overlap. 2. No host frame
// belongs to two slots or to both backings of one.
#ifndef TWINROOT_MMU_VM_MEMSLOT_MAP_H_
#define TWINROOT_MMU_VM_MEMSLOT_MAP_H_

#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "mmu/tables/mmu_lock.h"
#include "mmu/vm/guest_address_space.h"

namespace twinroot::mmu {

// The frame behind `gfn`, which is inside the slot; nullopt: no backing of that kind.
std::optional<Pfn> BackingOf(const Memslot& slot, Gfn gfn, MemoryKind kind);

class MemslotMap {
 public:
  // Why `slot` cannot be added; OK if it can.
  absl::Status Check(const MmuLock::Held&, const Memslot& slot) const;
  // After Check.
  void Add(const MmuLock::Exclusive&, const Memslot& slot);

  // Valid as long as the lock is held.
  const Memslot* Find(const MmuLock::Held&, Gfn gfn) const;

  // The parts of a range, each inside one slot; nullopt if a frame of it lies in none.
  std::optional<std::vector<GfnRange>> Parts(const MmuLock::Held&, GfnRange range) const;

  const std::vector<Memslot>& all(const MmuLock::Held&) const { return slots_; }

 private:
  std::vector<Memslot> slots_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_MEMSLOT_MAP_H_
