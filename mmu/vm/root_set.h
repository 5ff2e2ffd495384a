// The roots of one VM: private always, shared if a bit of the GPA is stolen for it.
// Constant between Create and destruction; which frames of the walk belong to which root is the
// layout's answer.
#ifndef TWINROOT_MMU_VM_ROOT_SET_H_
#define TWINROOT_MMU_VM_ROOT_SET_H_

#include "absl/status/status.h"
#include "mmu/hw/ept_pointer.h"
#include "mmu/tables/entry_change.h"
#include "mmu/tables/root.h"
#include "mmu/tables/table_pool.h"
#include "mmu/vm/gpa_layout.h"

namespace twinroot::mmu {

class RootSet {
 public:
  RootSet(TablePool& pool, EntryChange& change) : pool_(pool), change_(change) {}
  // Frees every table of every root. No vCPU runs on them any more.
  ~RootSet();

  // Once. kResourceExhausted: no table pages, and nothing was taken.
  absl::Status Create(const GpaLayout& layout, ExternalTables* external_private,
                      ExternalTables* external_shared);

  bool Has(MemoryKind kind) const { return Of(kind).table != nullptr; }
  const Root& Of(MemoryKind kind) const { return roots_[static_cast<int>(kind)]; }
  EptPointer PointerTo(MemoryKind kind, bool accessed_dirty) const;

 private:
  void FreeBelow(Table& table);

  TablePool& pool_;
  EntryChange& change_;
  Root roots_[2];  // [MemoryKind]
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_ROOT_SET_H_
