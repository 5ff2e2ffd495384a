#include "mmu/tables/table_pool.h"

#include <algorithm>
#include <cstring>
#include <string>

namespace twinroot::mmu {

TablePool::TablePool(Hpa base, std::byte* memory, size_t pages)
    : base_(base), memory_(memory), pages_(pages), tables_(new Table[pages]) {
  free_.reserve(pages);
  // Lowest address last: it is handed out first, so a small VM touches few pages of the arena.
  for (size_t i = pages; i-- > 0;) {
    Table& table = tables_[i];
    table.hpa = base_ + i * kPageSize;
    table.slots = reinterpret_cast<EntrySlot*>(memory_ + i * kPageSize);
    free_.push_back(&table);
  }
}

absl::Status TablePool::Preload(size_t count, PreloadedTables& preload) {
  // The vector grows before anything is taken: a failing allocation loses no table.
  preload.tables_.reserve(count);
  const MutexLock lock(mutex_);
  const size_t missing = count - std::min(count, preload.tables_.size());
  if (free_.size() < missing) {
    ++refused_;
    return absl::ResourceExhaustedError("no page-table pages left: " + std::to_string(missing) +
                                        " needed, " + std::to_string(free_.size()) + " of " +
                                        std::to_string(pages_) +
                                        " free; give the VM a larger table budget");
  }
  for (size_t i = 0; i < missing; ++i) {
    preload.tables_.push_back(free_.back());
    free_.pop_back();
  }
  peak_ = std::max(peak_, pages_ - free_.size());
  return absl::OkStatus();
}

void TablePool::Free(Table& table) {
  // An unlinked empty table is all zero already; one that dies with its root is not.
  if (table.present.exchange(0, std::memory_order_relaxed) != 0) {
    std::memset(static_cast<void*>(table.slots), 0, kPageSize);
  }
  table.parent = nullptr;
  const MutexLock lock(mutex_);
  free_.push_back(&table);  // never reallocates: reserved for all pages
}

Table* TablePool::At(Hpa hpa) {
  if (hpa < base_ || (hpa - base_) % kPageSize != 0) return nullptr;
  const uint64_t index = (hpa - base_) / kPageSize;
  return index < pages_ ? &tables_[index] : nullptr;
}

Hpa TablePool::AddressOf(const EntrySlot* slot) const {
  return base_ + static_cast<uint64_t>(reinterpret_cast<const std::byte*>(slot) - memory_);
}

TablePool::Stats TablePool::stats() const {
  const MutexLock lock(mutex_);
  return {.pages = pages_, .used = pages_ - free_.size(), .peak = peak_, .refused = refused_};
}

PreloadedTables::~PreloadedTables() {
  for (Table* table : tables_) pool_.Free(*table);
}

Table& PreloadedTables::Take() {
  Table& table = *tables_.back();
  tables_.pop_back();
  return table;
}

}  // namespace twinroot::mmu
