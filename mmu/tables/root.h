// The top of one paging structure, and how frames of the guest are numbered in its walk.
// A plain value; the table belongs to whoever made it.
#ifndef TWINROOT_MMU_TABLES_ROOT_H_
#define TWINROOT_MMU_TABLES_ROOT_H_

#include "mmu/tables/external_tables.h"
#include "mmu/tables/table.h"
#include "mmu/types/address.h"
#include "mmu/types/gfn_range.h"
#include "mmu/types/memory_kind.h"

namespace twinroot::mmu {

struct Root {
  Table* table = nullptr;  // null: the VM has no such root
  MemoryKind kind = MemoryKind::kPrivate;
  HwGfn base;                          // where the walk finds gfn 0 (the shared bit, or 0)
  ExternalTables* external = nullptr;  // null: processors walk our tables themselves

  HwGfn FrameOf(Gfn gfn) const { return base + gfn.value; }
  Gfn GfnOf(HwGfn frame) const { return Gfn(frame - base); }
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TABLES_ROOT_H_
