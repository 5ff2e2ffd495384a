// Slots that all have something in common: those that map a frame, those that link a table. One
// word while there is one, which is nearly always. Not thread-safe: the Turn's.
#ifndef TWINROOT_MMU_SHADOW_SLOT_LIST_H_
#define TWINROOT_MMU_SHADOW_SLOT_LIST_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "mmu/tables/entry_slot.h"

namespace twinroot::mmu {

class SlotList {
 public:
  SlotList() = default;
  ~SlotList() { delete many(); }
  SlotList(const SlotList&) = delete;
  SlotList& operator=(const SlotList&) = delete;

  bool empty() const { return word_ == 0; }
  size_t size() const { return slots().size(); }
  // Valid until the list changes.
  std::span<EntrySlot* const> slots() const {
    if (const Slots* slots = many()) return *slots;
    if (word_ == 0) return {};
    return {reinterpret_cast<EntrySlot* const*>(&word_), 1};
  }
  void Add(EntrySlot& slot) {
    if (word_ == 0) {
      word_ = reinterpret_cast<uintptr_t>(&slot);
    } else if (Slots* slots = many()) {
      slots->push_back(&slot);
    } else {
      auto both = std::make_unique<Slots>(Slots{reinterpret_cast<EntrySlot*>(word_), &slot});
      word_ = reinterpret_cast<uintptr_t>(both.release()) | kMany;
    }
  }
  // False: it is not here, or is here twice.
  bool Remove(EntrySlot& slot) {
    Slots* const slots = many();
    if (slots == nullptr) {
      if (word_ != reinterpret_cast<uintptr_t>(&slot)) return false;
      word_ = 0;
      return true;
    }
    if (std::count(slots->begin(), slots->end(), &slot) != 1) return false;
    std::erase(*slots, &slot);
    if (slots->size() == 1) {
      word_ = reinterpret_cast<uintptr_t>(slots->front());
      delete slots;
    }
    return true;
  }

 private:
  using Slots = std::vector<EntrySlot*>;
  static constexpr uintptr_t kMany = 1;
  Slots* many() const { return word_ & kMany ? reinterpret_cast<Slots*>(word_ & ~kMany) : nullptr; }

  uintptr_t word_ = 0;  // 0, a slot, or a vector with kMany
};

static_assert(sizeof(SlotList) == sizeof(uintptr_t));

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_SHADOW_SLOT_LIST_H_
