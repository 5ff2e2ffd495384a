// Audit: walks everything below one root table and compares it with what the tables say of
// themselves.
#ifndef TWINROOT_MMU_ENGINE_AUDIT_H_
#define TWINROOT_MMU_ENGINE_AUDIT_H_

#include <cstdint>
#include <functional>
#include <unordered_set>
#include <vector>

#include "absl/status/status.h"
#include "mmu/hw/ept_capabilities.h"
#include "mmu/tables/epoch.h"
#include "mmu/tables/root.h"
#include "mmu/tables/table_pool.h"

namespace twinroot::mmu {

// What was found; grows over several roots.
struct AuditTotals {
  std::unordered_set<const Table*> tables;
  uint64_t leaves[2][3] = {};  // [MemoryKind][0: 4K, 1: 2M, 2: 1G]
};

// `aliases`: all that share the root table of the first. No fault may be under way (Quiet). Returns
// kInternal with the sentence of the first violation: a frozen entry, a misconfiguration, a link
// outside the pool, a table reached twice or with the wrong identity, an entry of no alias, or what
// `check_leaf` says.
absl::Status AuditRoot(const Turn& turn, TablePool& pool, const std::vector<Root>& aliases,
                       const EptCapabilities& capabilities, int maxphyaddr,
                       const std::function<absl::Status(const Root& root, Gfn gfn, Level level,
                                                        EptEntry entry)>& check_leaf,
                       AuditTotals& totals);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_ENGINE_AUDIT_H_
