#include "mmu/vmx/tlb.h"

#include <algorithm>
#include <limits>

namespace twinroot::mmu::vmx {

Tlb::Tlb() {
  for (const auto& [level, size] :
       {std::pair{Level::k4K, kEntries4K}, std::pair{Level::k2M, kEntries2M},
        std::pair{Level::k1G, kEntries1G}}) {
    arrays_.push_back({level, std::vector<std::optional<Entry>>(size)});
  }
}

const EptTranslation* Tlb::Lookup(Hpa root, HwGfn frame) const {
  for (const PageSizeArray& array : arrays_) {
    const uint64_t page = array.PageOf(frame);
    const std::optional<Entry>& slot = array.Slot(page);
    if (slot.has_value() && slot->root == root && slot->page == page) return &slot->translation;
  }
  return nullptr;
}

void Tlb::Insert(Hpa root, HwGfn frame, const EptTranslation& translation) {
  for (PageSizeArray& array : arrays_) {
    if (array.level != translation.level) continue;
    const uint64_t page = array.PageOf(frame);
    array.Slot(page) = Entry{root, page, translation};
  }
}

void Tlb::FlushRange(Hpa root, HwGfn first, uint64_t count) {
  if (count == 0) return;
  const uint64_t room = std::numeric_limits<uint64_t>::max() - first.value;
  const HwGfn last = first + std::min(count - 1, room);
  for (PageSizeArray& array : arrays_) {
    const uint64_t first_page = array.PageOf(first);
    const uint64_t last_page = array.PageOf(last);
    const auto forget = [&](std::optional<Entry>& slot) {
      if (slot.has_value() && slot->root == root && slot->page >= first_page &&
          slot->page <= last_page) {
        slot.reset();
      }
    };
    // A short range touches its own slots only.
    if (last_page - first_page < array.entries.size()) {
      for (uint64_t page = first_page; page <= last_page; ++page) forget(array.Slot(page));
    } else {
      std::for_each(array.entries.begin(), array.entries.end(), forget);
    }
  }
}

void Tlb::FlushAll() {
  for (PageSizeArray& array : arrays_) {
    std::fill(array.entries.begin(), array.entries.end(), std::nullopt);
  }
}

}  // namespace twinroot::mmu::vmx
