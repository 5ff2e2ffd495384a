// One paging-structure entry in memory: one atomic word that processors read, and in which they
// may set A and D bits at any time. Anybody may load it; only EntryChange changes it.
#ifndef TWINROOT_MMU_TABLES_ENTRY_SLOT_H_
#define TWINROOT_MMU_TABLES_ENTRY_SLOT_H_

#include <atomic>
#include <cstdint>

#include "mmu/hw/ept_entry.h"
#include "mmu/hw/soft_bits.h"

namespace twinroot::mmu {

class EntrySlot {
 public:
  EptEntry Load() const { return EptEntry(word_.load(std::memory_order_acquire)); }

 private:
  friend class EntryChange;

  // On failure `expected` is what stands there.
  bool CompareExchange(EptEntry& expected, EptEntry desired) {
    uint64_t word = expected.raw();
    const bool changed = word_.compare_exchange_strong(
        word, desired.raw(), std::memory_order_acq_rel, std::memory_order_acquire);
    expected = EptEntry(word);
    return changed;
  }

  std::atomic<uint64_t> word_;
};

static_assert(sizeof(EntrySlot) == sizeof(uint64_t));
static_assert(std::atomic<uint64_t>::is_always_lock_free);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TABLES_ENTRY_SLOT_H_
