// Restrict: leaves of a range lose rights and stay mapped, where attributes deny more than before
// (D11). Attributes are not its business.
//
// Runs beside faults, which its caller holds off in the range (Invalidation), and beside
// processors. A leaf that reaches over the ends of the range goes, as in a zap, and so does one
// that no right is left of.
#ifndef TWINROOT_MMU_ENGINE_RESTRICT_H_
#define TWINROOT_MMU_ENGINE_RESTRICT_H_

#include "mmu/tables/entry_change.h"
#include "mmu/tables/flush_batch.h"
#include "mmu/tables/root.h"
#include "mmu/tables/table_pool.h"
#include "mmu/types/access.h"
#include "mmu/types/gfn_range.h"

namespace twinroot::mmu {

// What Restrict does to a leaf that lies in its range.
enum class Restriction : uint8_t {
  kNothing,  // it has no right too many
  kInPlace,  // it loses rights that it granted: to be flushed
  kUnseen,   // it loses rights that were withheld: no processor knows them
  kGone,     // it has no right left
};
constexpr Restriction RestrictionOf(EptEntry leaf, Access keep) {
  const EptEntry kept = WithOnly(leaf, keep);
  if (kept == leaf) return Restriction::kNothing;
  if (WithRestoredAccess(kept).access().empty()) return Restriction::kGone;
  return kept.access() == leaf.access() ? Restriction::kUnseen : Restriction::kInPlace;
}

// Leaves keep the rights in `keep` and no others. The root has no external table, which could not
// be told. The batch must be finished.
void Restrict(const Turn& turn, TablePool& pool, EntryChange& change, const Root& root,
              GfnRange range, Access keep, FlushBatch& batch);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_ENGINE_RESTRICT_H_
