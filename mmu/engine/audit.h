// Audit: walks everything below one root and compares it with what the tables say of themselves.
#ifndef TWINROOT_MMU_ENGINE_AUDIT_H_
#define TWINROOT_MMU_ENGINE_AUDIT_H_

#include <cstdint>
#include <functional>
#include <unordered_set>

#include "absl/status/status.h"
#include "mmu/hw/ept_capabilities.h"
#include "mmu/tables/mmu_lock.h"
#include "mmu/tables/root.h"
#include "mmu/tables/table_pool.h"

namespace twinroot::mmu {

// What was found; grows over several roots.
struct AuditTotals {
  std::unordered_set<const Table*> tables;
  uint64_t leaves[2][3] = {};  // [MemoryKind][0: 4K, 1: 2M, 2: 1G]
};

// kInternal: the sentence of the first violation: a frozen entry, a misconfiguration, a link
// outside the pool, a table reached twice or with the wrong identity, a wrong count, or what
// `check_leaf` (gfn of the leaf, its level, the entry) says.
absl::Status AuditRoot(
    const MmuLock::Exclusive& lock, TablePool& pool, const Root& root,
    const EptCapabilities& capabilities, int maxphyaddr,
    const std::function<absl::Status(Gfn gfn, Level level, EptEntry entry)>& check_leaf,
    AuditTotals& totals);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_ENGINE_AUDIT_H_
