// The pages that tables are made of: an arena that the caller provides, seen both through our
// pointers and through host physical addresses, which differ by a constant.
//
// Thread-safe. 1. A page that is handed out is all zero. 2. What is free is never linked.
// 3. Nothing allocates inside an EpochGuard: Preload first, take from the preload inside.
#ifndef TWINROOT_MMU_TABLES_TABLE_POOL_H_
#define TWINROOT_MMU_TABLES_TABLE_POOL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "mmu/tables/epoch.h"
#include "mmu/tables/mutex.h"
#include "mmu/tables/table.h"
#include "mmu/types/address.h"

namespace twinroot::mmu {

class PreloadedTables;

// A stack of tables, linked through Table::next.
class TableList {
 public:
  size_t size() const { return size_; }
  bool empty() const { return top_ == nullptr; }
  void Push(Table& table) {
    table.next = top_;
    top_ = &table;
    ++size_;
  }
  Table& Pop() {
    Table& table = *top_;
    top_ = table.next;
    --size_;
    return table;
  }

 private:
  Table* top_ = nullptr;
  size_t size_ = 0;
};

class TablePool {
 public:
  struct Stats {
    size_t pages = 0;  // the budget
    size_t used = 0;   // linked or preloaded; those that only wait to be free again do not count
    size_t peak = 0;
    uint64_t refused = 0;  // Preload calls that found too few pages
  };

  // `memory`: `pages` zeroed pages, page-aligned, at host physical address `base`; not owned.
  TablePool(Hpa base, std::byte* memory, size_t pages);
  TablePool(const TablePool&) = delete;
  TablePool& operator=(const TablePool&) = delete;

  // Fills `preload` up to `count` tables. May wait for faults to leave what was retired: not inside
  // an EpochGuard. kResourceExhausted: not so many are free; `preload` is as it was.
  absl::Status Preload(size_t count, PreloadedTables& preload);

  // Takes back a table that no processor, no slot and no other thread refers to.
  void Free(Table& table);
  // Takes back tables that no processor and no slot refers to; faults may still look at them, so
  // they are free again after an epoch. Not inside an EpochGuard.
  void Retire(TableList tables);

  // The table at an address, or null if the pool has none there.
  Table* At(Hpa hpa) {
    const uint64_t offset = hpa - base_;  // wraps below the base
    return offset % kPageSize == 0 && offset / kPageSize < pages_ ? &tables_[offset / kPageSize]
                                                                  : nullptr;
  }
  // Its slots, without a look at the descriptor; `hpa` is aligned to a page, as in every link.
  EntrySlot* SlotsAt(Hpa hpa) const {
    const uint64_t offset = hpa - base_;
    return offset < bytes_ ? reinterpret_cast<EntrySlot*>(memory_ + offset) : nullptr;
  }
  // The table that a slot of this pool belongs to.
  Table& TableOf(const EntrySlot& slot) { return tables_[(AddressOf(&slot) - base_) / kPageSize]; }
  // Host physical address of a slot of one of this pool's tables.
  Hpa AddressOf(const EntrySlot* slot) const;

  Hpa base() const { return base_; }
  size_t pages() const { return pages_; }
  Stats stats() const;

 private:
  const Hpa base_;
  std::byte* const memory_;
  const size_t pages_;
  const uint64_t bytes_ = pages_ * kPageSize;
  const std::unique_ptr<Table[]> tables_;

  // Waits for an epoch and frees what had been retired before. If another thread is about to, waits
  // for that.
  void Reclaim();
  size_t Used() const TWINROOT_REQUIRES(mutex_) {
    return pages_ - free_.size() - retired_.size() - reclaiming_;
  }

  Mutex reclaim_mutex_;  // before mutex_
  mutable Mutex mutex_;
  TableList free_ TWINROOT_GUARDED_BY(mutex_);
  TableList retired_ TWINROOT_GUARDED_BY(mutex_);
  size_t reclaiming_ TWINROOT_GUARDED_BY(mutex_) = 0;  // wait for an epoch in Reclaim
  size_t peak_ TWINROOT_GUARDED_BY(mutex_) = 0;
  uint64_t refused_ TWINROOT_GUARDED_BY(mutex_) = 0;
};

// Tables taken out of the pool for one operation; what is left goes back. One thread at a time.
class PreloadedTables {
 public:
  explicit PreloadedTables(TablePool& pool) : pool_(pool) {}
  ~PreloadedTables() {
    if (!tables_.empty()) GiveBack();
  }
  PreloadedTables(const PreloadedTables&) = delete;
  PreloadedTables& operator=(const PreloadedTables&) = delete;

  bool empty() const { return tables_.empty(); }
  size_t size() const { return tables_.size(); }
  // Not when empty.
  Table& Take();
  // Puts back one that Take gave and that was never linked.
  void Return(Table& table) { tables_.push_back(&table); }

 private:
  friend class TablePool;
  void GiveBack();

  TablePool& pool_;
  std::vector<Table*> tables_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TABLES_TABLE_POOL_H_
