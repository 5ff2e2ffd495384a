#include "mmu/tables/table_pool.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

namespace twinroot::mmu {
namespace {

// So many retired tables are worth the wait for an epoch.
constexpr size_t kManyRetired = 256;

void Clean(Table& table) {
  // What was never named holds nothing.
  if (table.named) std::memset(static_cast<void*>(table.slots), 0, kPageSize);
  table.named = false;
  table.parent = nullptr;
}

}  // namespace

TablePool::TablePool(Hpa base, std::byte* memory, size_t pages)
    : base_(base), memory_(memory), pages_(pages), tables_(new Table[pages]) {
  // Lowest address last: it is handed out first, so a small VM touches few pages of the arena.
  for (size_t i = pages; i-- > 0;) {
    Table& table = tables_[i];
    table.hpa = base_ + i * kPageSize;
    table.slots = reinterpret_cast<EntrySlot*>(memory_ + i * kPageSize);
    free_.Push(table);
  }
}

absl::Status TablePool::Preload(size_t count, PreloadedTables& preload) {
  // The vector grows before anything is taken: a failing allocation loses no table.
  preload.tables_.reserve(count);
  const size_t missing = count - std::min(count, preload.tables_.size());
  for (bool reclaimed = false;; reclaimed = true) {
    {
      const MutexLock lock(mutex_);
      if (free_.size() >= missing) {
        for (size_t i = 0; i < missing; ++i) {
          preload.tables_.push_back(&free_.Pop());
        }
        // Taken from the end: so the lowest address first, which a run of splits fills fastest.
        std::reverse(preload.tables_.end() - static_cast<ptrdiff_t>(missing),
                     preload.tables_.end());
        peak_ = std::max(peak_, Used());
        return absl::OkStatus();
      }
      if (reclaimed) {
        ++refused_;
        return absl::ResourceExhaustedError("no page-table pages left: " + std::to_string(missing) +
                                            " needed, " + std::to_string(free_.size()) + " of " +
                                            std::to_string(pages_) +
                                            " free; give the VM a larger table budget");
      }
    }
    Reclaim();
  }
}

void TablePool::Free(Table& table) {
  Clean(table);
  const MutexLock lock(mutex_);
  free_.Push(table);
}

void TablePool::Retire(TableList tables) {
  size_t waiting;
  {
    const MutexLock lock(mutex_);
    while (!tables.empty()) retired_.Push(tables.Pop());
    waiting = retired_.size();
  }
  if (waiting >= kManyRetired) Reclaim();
}

void TablePool::Reclaim() {
  // Who finds nothing retired while another thread waits here must not take that for a shortage.
  const MutexLock one_at_a_time(reclaim_mutex_);
  TableList tables;
  {
    const MutexLock lock(mutex_);
    std::swap(tables, retired_);
    reclaiming_ = tables.size();
  }
  if (tables.empty()) return;
  SynchronizeEpoch();
  TableList clean;
  while (!tables.empty()) {
    Table& table = tables.Pop();
    Clean(table);
    clean.Push(table);
  }
  const MutexLock lock(mutex_);
  while (!clean.empty()) free_.Push(clean.Pop());
  reclaiming_ = 0;
}

Hpa TablePool::AddressOf(const EntrySlot* slot) const {
  return base_ + static_cast<uint64_t>(reinterpret_cast<const std::byte*>(slot) - memory_);
}

TablePool::Stats TablePool::stats() const {
  const MutexLock lock(mutex_);
  return {.pages = pages_, .used = Used(), .peak = peak_, .refused = refused_};
}

void PreloadedTables::GiveBack() {
  for (Table* table : tables_) pool_.Free(*table);
}

Table& PreloadedTables::Take() {
  Table& table = *tables_.back();
  tables_.pop_back();
  return table;
}

}  // namespace twinroot::mmu
