// Long work in pieces: the memory of a VM, 1 GiB at a time, each under a Turn of its own, so that
// conversions and other changes go on between.
#ifndef TWINROOT_MMU_VM_CHUNKS_H_
#define TWINROOT_MMU_VM_CHUNKS_H_

#include <algorithm>

#include "absl/status/status.h"
#include "mmu/vm/address_space_state.h"

namespace twinroot::mmu {

inline constexpr uint64_t kChunk = FramesPerEntry(Level::k1G);

// The parts of memslots from `at` on, none larger than a chunk and none across a chunk's end: taken
// one by one, since slots may change between two turns. Empty: there is none left before `end`.
inline GfnRange NextChunk(const AddressSpaceState& vm, const Turn& turn, Gfn at, Gfn end) {
  for (const Memslot& slot : vm.slots.all(turn)) {
    if (slot.range.end() <= at || slot.range.first >= end) continue;
    const Gfn first = std::max(slot.range.first, at);
    const Gfn chunk_end = first - first.value % kChunk + kChunk;
    return {first, std::min({slot.range.end(), chunk_end, end}) - first};
  }
  return {end, 0};
}

// `function(turn, chunk)` returns a status; the first error ends the work.
template <typename Function>
absl::Status ForEachChunk(AddressSpaceState& vm, GfnRange range, const Function& function) {
  for (Gfn at = range.first; at < range.end();) {
    const Turn turn(vm.turn_mutex);
    if (absl::Status status = vm.bugs.Check(); !status.ok()) return status;
    const GfnRange chunk = NextChunk(vm, turn, at, range.end());
    if (chunk.empty()) break;
    if (absl::Status status = function(turn, chunk); !status.ok()) return status;
    at = chunk.end();
  }
  return absl::OkStatus();
}

template <typename Function>
void ForEachAlias(const AddressSpaceState& vm, const Function& function) {
  for (const MemoryKind kind : kAllKinds) {
    for (const Root& alias : vm.roots.AliasesOf(kind)) function(alias);
  }
}

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_CHUNKS_H_
