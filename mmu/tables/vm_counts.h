// The books of one VM.
#ifndef TWINROOT_MMU_TABLES_VM_COUNTS_H_
#define TWINROOT_MMU_TABLES_VM_COUNTS_H_

#include <cstdint>

#include "mmu/tables/lane_counters.h"
#include "mmu/types/level.h"
#include "mmu/types/memory_kind.h"

namespace twinroot::mmu {

enum class VmCount : uint8_t {
  // Leaves that stand now; kLeaf + 3 * MemoryKind + (0: 4K, 1: 2M, 2: 1G).
  kLeaf = 0,
  kTables = 6,
  kTablesLeft,  // times a table that may hold nothing was left where it stands
  // Faults by what became of them.
  kFaultFixed,
  kFaultFast,  // rights given back by one exchange
  kFaultSpurious,
  kFaultRetry,
  kFaultMmio,
  kFaultMemory,
  kFaultFailed,
  kFaultPending,
  kMmioCached,  // accesses that found an MMIO entry of the current generation
  // Leaves split and collapsed, by why.
  kSplitDirtyLog,
  kSplitRequest,
  kSplitConversion,
  kSplitFault,          // a write or a fetch that the large page could not allow
  kSplitKeptForTables,  // wanted, but there was no table: the large page stayed
  kCollapseDirtyLog,
  kCollapseAttributes,
  kCollapseNxRecovery,
  kFlushRange,
  kFlushFull,
  kCount,
};

using VmCounts = LaneCounters<VmCount>;

constexpr VmCount LeafCount(MemoryKind kind, Level level) {
  return static_cast<VmCount>(3 * static_cast<int>(kind) + static_cast<int>(level) - 1);
}
static_assert(LeafCount(MemoryKind::kShared, Level::k1G) == static_cast<VmCount>(5));

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TABLES_VM_COUNTS_H_
