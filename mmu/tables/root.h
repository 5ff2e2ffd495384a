// The top of one paging structure, and how frames of the guest are numbered in its walk.
// A plain value; the table belongs to whoever made it.
#ifndef TWINROOT_MMU_TABLES_ROOT_H_
#define TWINROOT_MMU_TABLES_ROOT_H_

#include "mmu/tables/external_tables.h"
#include "mmu/tables/table.h"
#include "mmu/types/access.h"
#include "mmu/types/address.h"
#include "mmu/types/gfn_range.h"
#include "mmu/types/memory_kind.h"

namespace twinroot::mmu {

// Two aliases of one kind are two of these over one table.
struct Root {
  Table* table = nullptr;  // null: the VM has no such root
  MemoryKind kind = MemoryKind::kPrivate;
  bool execute_only = false;  // the alias whose leaves grant fetches and nothing else (A10)
  HwGfn base;                 // where the walk finds gfn 0: the alias's stolen bits
  HwGfn kind_base;            // of them, those that stand for the kind
  ExternalTables* external = nullptr;  // null: processors walk our tables themselves

  HwGfn FrameOf(Gfn gfn) const { return base + gfn.value; }
  Gfn GfnOf(HwGfn frame) const { return Gfn(frame - base); }
  // What a leaf of this alias may grant.
  Access rights() const { return execute_only ? Access::Fetch() : Access::All(); }
};

// The identity of the table that an entry of `parent` links, on the way to `gfn`. A table that
// holds frames of several aliases belongs to what they have in common.
constexpr TableIdentity ChildIdentity(const TableIdentity& parent, const Root& root, Gfn gfn) {
  TableIdentity child = parent;
  const uint64_t frames = FramesPerEntry(parent.role.level);
  child.gfn = gfn - gfn.value % frames;
  child.role.level = Below(parent.role.level);
  // Each bit by itself: one may choose the entry, the other an entry far below.
  if (root.kind_base.value % frames == 0) child.role.kind = root.kind;
  if ((root.base - root.kind_base) % frames == 0) child.role.execute_only = root.execute_only;
  return child;
}

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TABLES_ROOT_H_
