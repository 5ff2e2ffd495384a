// One slot of a table: an atomic 64-bit word, shared with the processors that walk it, and what
// such a word means to the engine.
#ifndef TWINROOT_MMU_TABLES_ENTRY_SLOT_H_
#define TWINROOT_MMU_TABLES_ENTRY_SLOT_H_

#include <atomic>
#include <cstdint>

#include "mmu/hw/ept_entry.h"
#include "mmu/hw/soft_bits.h"

namespace twinroot::mmu {

enum class SlotState : uint8_t {
  kEmpty,   // nothing; a fault may fill it
  kFrozen,  // one thread is in the middle of a change; everybody else waits or retries
  kMmio,    // a cached "no memory here"; a fault may replace it
  kLink,    // leads to the next table
  kLeaf,    // maps a page, perhaps with its rights taken away for a while
};

constexpr SlotState StateOf(EptEntry entry, Level level) {
  if (IsMmuPresent(entry)) return entry.IsLeaf(level) ? SlotState::kLeaf : SlotState::kLink;
  if (entry == kEmptyEntry) return SlotState::kEmpty;
  return entry == kFrozenEntry ? SlotState::kFrozen : SlotState::kMmio;
}

// What a walk meets most, without a look at the rest.
constexpr bool IsLink(EptEntry entry, Level level) {
  return level != Level::k4K && IsMmuLink(entry);
}

class EntrySlot {
 public:
  EptEntry Load() const { return EptEntry(word_.load(std::memory_order_acquire)); }
  // Ordered with InvalidationSeq: a change that has begun sees what is frozen, or the one who froze
  // sees that it has begun.
  EptEntry LoadOrdered() const { return EptEntry(word_.load(std::memory_order_seq_cst)); }

 private:
  friend class EntryChange;
  friend class TablePool;

  // On failure `expected` is what stands there.
  bool CompareExchange(EptEntry& expected, EptEntry desired) {
    uint64_t word = expected.raw();
    const bool changed = word_.compare_exchange_strong(word, desired.raw());
    expected = EptEntry(word);
    return changed;
  }
  // By the owner of a frozen slot, or before the table is linked.
  void Store(EptEntry entry) { word_.store(entry.raw(), std::memory_order_release); }

  std::atomic<uint64_t> word_;
};

static_assert(sizeof(EntrySlot) == sizeof(uint64_t));
static_assert(std::atomic<uint64_t>::is_always_lock_free);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TABLES_ENTRY_SLOT_H_
