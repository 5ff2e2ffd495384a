// A page of entries, and what it is. The descriptor stands beside the page, not in it: a walk needs
// the page only.
#ifndef TWINROOT_MMU_TABLES_TABLE_H_
#define TWINROOT_MMU_TABLES_TABLE_H_

#include "mmu/tables/entry_slot.h"
#include "mmu/tables/table_role.h"

namespace twinroot::mmu {

class ShadowPage;

// Identity and parent are written before the table is linked, and stay until it is freed.
struct Table {
  Hpa hpa;
  EntrySlot* slots = nullptr;  // kEntriesPerTable of them
  TableIdentity identity;
  const Table* parent = nullptr;  // null: a root
  ShadowPage* shadow = nullptr;   // of a shadow table: the rest of what it is
  bool named = false;             // was given an identity since it was free: it may hold entries
  Table* next = nullptr;          // in the list of a pool, or of those that go back to it

  Level level() const { return identity.role.level; }
};
static_assert(sizeof(Table) <= 64);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TABLES_TABLE_H_
