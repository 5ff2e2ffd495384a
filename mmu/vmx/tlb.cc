#include "mmu/vmx/tlb.h"

#include <algorithm>
#include <limits>

namespace twinroot::mmu::vmx {

Tlb::Tlb()
    : arrays_{{{Level::k4K, kEntries4K, 0},
               {Level::k2M, kEntries2M, kEntries4K},
               {Level::k1G, kEntries1G, kEntries4K + kEntries2M}}},
      entries_(kEntries4K + kEntries2M + kEntries1G) {}

const EptTranslation* Tlb::Lookup(Hpa root, HwGfn frame) const {
  for (const PageSizeArray& array : arrays_) {
    if (!array.ever_used) continue;
    const uint64_t page = array.PageOf(frame);
    const Entry& entry = entries_[array.IndexOf(page)];
    if (entry.page == page && entry.root == root) return &entry.translation;
  }
  return nullptr;
}

void Tlb::Insert(Hpa root, HwGfn frame, const EptTranslation& translation) {
  PageSizeArray& array = arrays_[static_cast<size_t>(translation.level) - 1];
  const uint64_t page = array.PageOf(frame);
  entries_[array.IndexOf(page)] = Entry{page, root, translation};
  array.ever_used = true;
}

void Tlb::FlushRange(Hpa root, HwGfn first, uint64_t count) {
  if (count == 0) return;
  const uint64_t room = std::numeric_limits<uint64_t>::max() - first.value;
  const HwGfn last = first + std::min(count - 1, room);
  for (const PageSizeArray& array : arrays_) {
    if (!array.ever_used) continue;
    const uint64_t first_page = array.PageOf(first);
    const uint64_t last_page = array.PageOf(last);
    const auto forget = [&](Entry& entry) {
      if (entry.page >= first_page && entry.page <= last_page && entry.root == root) {
        entry.page = kNone;
      }
    };
    // A short range touches its own slots only.
    if (last_page - first_page < array.entries) {
      for (uint64_t page = first_page; page <= last_page; ++page) {
        forget(entries_[array.IndexOf(page)]);
      }
    } else {
      for (uint64_t i = 0; i < array.entries; ++i) forget(entries_[array.first + i]);
    }
  }
}

void Tlb::FlushAll() {
  for (PageSizeArray& array : arrays_) array.ever_used = false;
  std::fill(entries_.begin(), entries_.end(), Entry{});
}

}  // namespace twinroot::mmu::vmx
