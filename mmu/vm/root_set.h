// The roots of one VM: private always, shared if a bit of the GPA is stolen for it.
// Constant between Create and destruction; which frames of the walk belong to which root is the
// layout's answer.
#ifndef TWINROOT_MMU_VM_ROOT_SET_H_
#define TWINROOT_MMU_VM_ROOT_SET_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "mmu/hw/ept_pointer.h"
#include "mmu/tables/entry_change.h"
#include "mmu/tables/root.h"
#include "mmu/tables/table_pool.h"
#include "mmu/vm/gpa_layout.h"

namespace twinroot::mmu {

// Where the shared bit leads (A2, A11).
enum class RootArrangement : uint8_t {
  kTwoRoots,  // it selects the root, and stays part of the index there: as on TDX
  kOneRoot,   // it is part of the index of the one root
};

class RootSet {
 public:
  RootSet(TablePool& pool, EntryChange& change) : pool_(pool), change_(change) {}
  // Frees every table of every root. No vCPU runs on them any more.
  ~RootSet();

  // Once. kResourceExhausted: no table pages, and nothing was taken.
  absl::Status Create(const GpaLayout& layout, RootArrangement arrangement,
                      ExternalTables* external_private, ExternalTables* external_shared);

  bool Has(MemoryKind kind) const { return Of(kind).table != nullptr; }
  const Root& Of(MemoryKind kind, bool execute_only = false) const {
    return roots_[2 * static_cast<int>(kind) + (execute_only ? 1 : 0)];
  }
  // Every alias of memory of one kind (A4); empty if there is none.
  absl::Span<const Root> AliasesOf(MemoryKind kind) const {
    return {&Of(kind), Has(kind) ? size_t{aliases_} : 0};
  }
  // Those that share one root table, for each root table.
  std::vector<std::vector<Root>> ByTable() const;
  EptPointer PointerTo(MemoryKind kind, bool accessed_dirty) const;

 private:
  void FreeBelow(Table& table);

  TablePool& pool_;
  EntryChange& change_;
  Root roots_[4];        // [2 * MemoryKind + execute_only]
  uint8_t aliases_ = 1;  // of each kind
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_ROOT_SET_H_
