// Taking rights and flags from leaves that stay: W for dirty logging by write protection, D for
// dirty logging by D bits, A for aging.
//
// Runs beside faults and processors, by exchanges on single words. What was taken is added to the
// batch, to be flushed before anybody relies on it; but for A, which is a hint (mmu/vm/aging.h).
#ifndef TWINROOT_MMU_ENGINE_PROTECT_H_
#define TWINROOT_MMU_ENGINE_PROTECT_H_

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "mmu/tables/entry_change.h"
#include "mmu/tables/flush_batch.h"
#include "mmu/tables/root.h"
#include "mmu/tables/table_pool.h"
#include "mmu/types/gfn_range.h"

namespace twinroot::mmu {

enum class Taken : uint8_t {
  kWrite,
  kWriteOfLarge,  // kWrite, from leaves larger than 4K only
  kDirty,
  kAccessed,
  kRights,  // all of them, to be remembered: kAccessed where there are no A bits
};

// Called for each leaf that had it.
using OnTaken = absl::FunctionRef<void(Gfn first, uint64_t frames)>;

// From every leaf with a frame in the range. A leaf that a fault splits meanwhile is followed into
// its table.
void TakeFromRange(const Turn& turn, TablePool& pool, EntryChange& change, const Root& root,
                   GfnRange range, Taken what, FlushBatch& batch, OnTaken on_taken);

// From the leaves of the pages whose bits are set: bit i of words[k] is the page first + 64 k + i;
// `first` is a multiple of 64.
void TakeFromPages(const Turn& turn, TablePool& pool, EntryChange& change, const Root& root,
                   Gfn first, absl::Span<const uint64_t> words, Taken what, FlushBatch& batch);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_ENGINE_PROTECT_H_
