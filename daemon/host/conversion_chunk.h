// The next piece of work of a conversion of many pages: bounded, whatever the guest asks for.
#ifndef TWINROOT_DAEMON_HOST_CONVERSION_CHUNK_H_
#define TWINROOT_DAEMON_HOST_CONVERSION_CHUNK_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "mmu/types/gfn_range.h"
#include "mmu/types/memory_kind.h"
#include "mmu/vm/guest_address_space.h"

namespace twinroot::host {

// Inside one aligned 2 MiB, so that large pages go as a whole; at most so many ranges of pages that
// are not of the kind yet, each of which is an event.
inline constexpr uint64_t kMaxPartsOfChunk = 64;
// While there is nothing to do: how far one look goes.
inline constexpr uint64_t kMaxFramesOfLook = (uint64_t{1} << 30) >> mmu::kPageShift;

struct Chunk {
  mmu::GfnRange range;  // to be converted; empty: all that was looked at is of the kind
  uint64_t pages = 0;   // of it those that are not of the kind
  mmu::Gfn end;         // where to go on after it
};

// What a conversion of `rest` has to do next. Errors as GetMemoryAttributes.
absl::StatusOr<Chunk> NextChunk(const mmu::GuestAddressSpace& engine, mmu::GfnRange rest,
                                mmu::MemoryKind kind);

// Is every frame of that kind? Not if some lie outside of memory.
bool IsAll(const mmu::GuestAddressSpace& engine, mmu::GfnRange range, mmu::MemoryKind kind);

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_CONVERSION_CHUNK_H_
