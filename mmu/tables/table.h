// One page of entries and what we know about it. Lives in TablePool as long as the pool.
//
// `identity` and `parent` are written before the table is linked and constant while it is.
#ifndef TWINROOT_MMU_TABLES_TABLE_H_
#define TWINROOT_MMU_TABLES_TABLE_H_

#include <atomic>
#include <cstdint>

#include "mmu/tables/entry_slot.h"
#include "mmu/tables/table_role.h"

namespace twinroot::mmu {

struct Table {
  Hpa hpa;
  EntrySlot* slots = nullptr;  // kEntriesPerTable of them
  TableIdentity identity;
  Table* parent = nullptr;           // null: a root
  std::atomic<uint32_t> present{0};  // entries that are present; kept by EntryChange

  Level level() const { return identity.role.level; }
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TABLES_TABLE_H_
