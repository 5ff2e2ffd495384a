// Map: makes one leaf stand where a fault wants it.
//
// Runs under MmuLock::Shared, many at a time. 1. A table is filled and named before it is linked.
// 2. Tables come from the preload: nothing allocates here. 3. With an external table behind the
// root, its Set happens exactly once for each leaf, between freeze and publish (E1).
#ifndef TWINROOT_MMU_ENGINE_MAP_H_
#define TWINROOT_MMU_ENGINE_MAP_H_

#include <variant>

#include "absl/status/status.h"
#include "mmu/tables/entry_change.h"
#include "mmu/tables/mmu_lock.h"
#include "mmu/tables/root.h"
#include "mmu/tables/table_pool.h"

namespace twinroot::mmu {

struct MapRequest {
  Gfn gfn;
  Pfn pfn;      // the frame of gfn itself
  Level level;  // at most; smaller where a table stands already
  Access access = Access::All();
};

struct Mapped {
  Level level;
};  // this call made the leaf
struct AlreadyMapped {
  Level level;
};                // a leaf was there
struct Raced {};  // somebody is changing the slot: try again later
struct NeedTables {
  size_t count;
};  // nothing changed; preload so many and call again
struct ExternalFailed {
  absl::Status status;
};  // the slot is as it was; tables may be empty now
struct BrokenTables {
  Hpa table;
};  // a link that leads outside the pool
using MapOutcome =
    std::variant<Mapped, AlreadyMapped, Raced, NeedTables, ExternalFailed, BrokenTables>;

MapOutcome Map(const MmuLock::Shared& lock, TablePool& pool, EntryChange& change, const Root& root,
               const MapRequest& request, PreloadedTables& preload);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_ENGINE_MAP_H_
