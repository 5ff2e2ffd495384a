#include "daemon/host/conversion_chunk.h"

#include <algorithm>

#include "mmu/types/level.h"

namespace twinroot::host {
namespace {

using mmu::Gfn;
using mmu::GfnRange;

// From `at` to the next multiple of `frames`, or the end.
GfnRange PieceAt(Gfn at, Gfn end, uint64_t frames) {
  return {at, std::min(end - at, frames - at.value % frames)};
}

}  // namespace

absl::StatusOr<Chunk> NextChunk(const mmu::GuestAddressSpace& engine, GfnRange rest,
                                mmu::MemoryKind kind) {
  const Gfn look_end = rest.first + std::min(rest.count, kMaxFramesOfLook);
  Chunk chunk;
  for (Gfn at = rest.first; at < look_end; at = chunk.end) {
    const GfnRange piece = PieceAt(at, look_end, mmu::FramesPerEntry(mmu::Level::k2M));
    const absl::StatusOr<std::vector<mmu::AttributeRun>> runs = engine.GetMemoryAttributes(piece);
    if (!runs.ok()) return runs.status();
    chunk.end = piece.end();
    uint64_t parts = 0;
    for (const mmu::AttributeRun& run : *runs) {
      if (run.kind == kind) continue;
      if (parts == kMaxPartsOfChunk) {
        chunk.end = chunk.range.end();
        break;
      }
      if (parts++ == 0) chunk.range.first = run.range.first;
      chunk.range.count = run.range.end() - chunk.range.first;
      chunk.pages += run.range.count;
    }
    if (parts > 0) return chunk;
  }
  return chunk;
}

bool IsAll(const mmu::GuestAddressSpace& engine, GfnRange range, mmu::MemoryKind kind) {
  for (Gfn at = range.first; at < range.end();) {
    const GfnRange piece = PieceAt(at, range.end(), mmu::FramesPerEntry(mmu::Level::k1G));
    const absl::StatusOr<std::vector<mmu::AttributeRun>> runs = engine.GetMemoryAttributes(piece);
    if (!runs.ok()) return false;
    for (const mmu::AttributeRun& run : *runs) {
      if (run.kind != kind) return false;
    }
    at = piece.end();
  }
  return true;
}

}  // namespace twinroot::host
