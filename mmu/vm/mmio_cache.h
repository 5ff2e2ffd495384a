// MMIO marks (behaviour F9): what a fault found out about a frame outside of memslots, kept in a
// word that makes the next access exit as an EPT misconfiguration.
//
// A mark stands in the largest entry of at most 1 GiB that holds no frame of a memslot. It says
// "none, as of this generation of the memslots"; every change of memslots begins a new generation,
// and when the generations start over all mappings and marks are zapped. Thread-safe.
#ifndef TWINROOT_MMU_VM_MMIO_CACHE_H_
#define TWINROOT_MMU_VM_MMIO_CACHE_H_

#include <cstddef>
#include <functional>
#include <optional>

#include "mmu/engine/map.h"
#include "mmu/vm/address_space_state.h"

namespace twinroot::mmu {

// The frame lies in no memslot: leaves a mark, if this VM keeps them and nobody is changing
// anything. NeedTables: it takes so many; call again with them, or let it be.
std::optional<NeedTables> MarkMmio(AddressSpaceState& vm, const EpochGuard& guard, const Root& root,
                                   Gfn gfn, PreloadedTables& preload,
                                   const std::function<bool(GfnRange)>& still_valid);

// As GuestAddressSpace says.
MmioOutcome HandleMisconfiguration(AddressSpaceState& vm, Gpa gpa);

// The generations of the memslots, for who changes them. Wraps: the next generation was there
// before, so every mark must go in the same invalidation.
inline bool MmioGenerationWraps(const AddressSpaceState& vm) {
  return vm.config.mmio_caching != MmioCaching::kNone &&
         ((vm.mmio_generation.load(std::memory_order_relaxed) + 1) & kMmioGenerationMask) == 0;
}
inline void BumpMmioGeneration(AddressSpaceState& vm) {
  const uint64_t next = vm.mmio_generation.load(std::memory_order_relaxed) + 1;
  vm.mmio_generation.store(next & kMmioGenerationMask, std::memory_order_release);
}

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_MMIO_CACHE_H_
