// What one change took out of shadow tables: flush first, then the tables are free again.
//
// Not thread-safe: the Turn's. Readers of shadow tables are processors and holders of the Turn, so
// no epoch is waited for. Destroying one that holds something unfinished is a bug, and reported.
#ifndef TWINROOT_MMU_SHADOW_SHADOW_FLUSH_H_
#define TWINROOT_MMU_SHADOW_SHADOW_FLUSH_H_

#include "mmu/tables/bug_sink.h"
#include "mmu/tables/epoch.h"
#include "mmu/tables/table_pool.h"
#include "mmu/tables/tlb_flusher.h"

namespace twinroot::mmu {

class ShadowFlush {
 public:
  // `flusher` may be null: no processor walks these tables.
  ShadowFlush(TablePool& pool, TlbFlusher* flusher, BugSink& bugs)
      : pool_(pool), flusher_(flusher), bugs_(bugs) {}
  ~ShadowFlush() {
    if (needed_ || !retired_.empty()) {
      bugs_.ReportBug("a shadow flush was destroyed before it was finished");
    }
  }
  ShadowFlush(const ShadowFlush&) = delete;
  ShadowFlush& operator=(const ShadowFlush&) = delete;

  // Processors may know what no longer stands.
  void Add() { needed_ = true; }
  // Unlinked, and in nobody's hands.
  void Retire(Table& table) {
    needed_ = true;
    retired_.Push(table);
  }
  bool needed() const { return needed_; }

  void Finish(const Turn&) {
    if (!needed_) return;
    // By address there is nothing to name: processors tag what they cache by linear address.
    if (flusher_ != nullptr) flusher_->FlushAll();
    needed_ = false;
    while (!retired_.empty()) pool_.Free(retired_.Pop());
  }

 private:
  TablePool& pool_;
  TlbFlusher* const flusher_;
  BugSink& bugs_;
  bool needed_ = false;
  TableList retired_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_SHADOW_SHADOW_FLUSH_H_
