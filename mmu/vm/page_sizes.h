// Splitting large pages on request, and making them large again where nothing forbids it (F4, F5).
#ifndef TWINROOT_MMU_VM_PAGE_SIZES_H_
#define TWINROOT_MMU_VM_PAGE_SIZES_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu/engine/split.h"
#include "mmu/vm/address_space_state.h"

namespace twinroot::mmu {

// Thread-safe: chunk by chunk.
absl::StatusOr<SplitResult> SplitPages(AddressSpaceState& vm, GfnRange range, Level target,
                                       VmCount reason);
absl::StatusOr<RecoverResult> RecoverPages(AddressSpaceState& vm, GfnRange range, VmCount reason);

// One piece of memory, by the holder of the Turn: one flush batch. How many tables became leaves.
absl::StatusOr<uint64_t> RecoverChunk(const Turn& turn, AddressSpaceState& vm, GfnRange chunk,
                                      VmCount reason);

// One large leaf of one kind in every alias, by the holder of the Turn, where a table stands and
// nothing forbids the leaf; the batch is the caller's to finish. How many aliases got it.
uint64_t RecoverLeaf(const Turn& turn, AddressSpaceState& vm, Gfn first, Level level,
                     MemoryKind kind, FlushBatch& batch);

// SplitRange by the holder of the Turn, counted under `reason` and added to `result`. Tables that
// ZapAll left make room first, some for each call.
void SplitAlias(
    const Turn& turn, AddressSpaceState& vm, const Root& alias, GfnRange range, Level target,
    VmCount reason, SplitResult& result, OnKept on_kept = [](HwGfn, Level) {});

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_PAGE_SIZES_H_
