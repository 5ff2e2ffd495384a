// Which shadow leaves map a frame of the guest: all of them, by (level of the leaf, first gfn).
// Eight bytes for each frame that is mapped once, in chunks of 512. Not thread-safe: the Turn's.
#ifndef TWINROOT_MMU_SHADOW_REVERSE_MAP_H_
#define TWINROOT_MMU_SHADOW_REVERSE_MAP_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "mmu/shadow/slot_list.h"
#include "mmu/types/address.h"
#include "mmu/types/gfn_range.h"
#include "mmu/types/level.h"

namespace twinroot::mmu {

class ReverseMap {
 public:
  // `gfn` is aligned to the level, which is 4K, 2M or 1G.
  void Add(Level level, Gfn gfn, EntrySlot& slot) {
    const uint64_t number = NumberOf(level, gfn);
    std::unique_ptr<Chunk>& chunk = OfLevel(level)[number / kHeads];
    if (chunk == nullptr) chunk = std::make_unique<Chunk>();
    SlotList& head = chunk->heads[number % kHeads];
    chunk->used += head.empty();
    head.Add(slot);
    ++mappings_;
  }
  // The same for a whole table of leaves: slot i for the i-th frame from `gfn` on, which is aligned
  // to what the table covers.
  void AddTable(Level level, Gfn gfn, EntrySlot* slots) {
    std::unique_ptr<Chunk>& chunk = OfLevel(level)[NumberOf(level, gfn) / kHeads];
    if (chunk == nullptr) chunk = std::make_unique<Chunk>();
    for (uint64_t i = 0; i < kHeads; ++i) {
      chunk->used += chunk->heads[i].empty();
      chunk->heads[i].Add(slots[i]);
    }
    mappings_ += kHeads;
  }
  // False: that slot is not on record for this frame (B3).
  bool Remove(Level level, Gfn gfn, EntrySlot& slot) {
    const uint64_t number = NumberOf(level, gfn);
    Chunks& chunks = OfLevel(level);
    const auto chunk = chunks.find(number / kHeads);
    if (chunk == chunks.end()) return false;
    SlotList& head = chunk->second->heads[number % kHeads];
    if (!head.Remove(slot)) return false;
    if (head.empty() && --chunk->second->used == 0) chunks.erase(chunk);
    --mappings_;
    return true;
  }
  // The slots at `level` whose leaf covers the frame. Null: none.
  const SlotList* Find(Level level, Gfn gfn) const {
    const uint64_t number = NumberOf(level, gfn);
    const Chunks& chunks = levels_[static_cast<size_t>(level) - 1];
    const auto chunk = chunks.find(number / kHeads);
    if (chunk == chunks.end()) return nullptr;
    const SlotList& head = chunk->second->heads[number % kHeads];
    return head.empty() ? nullptr : &head;
  }
  // The first frames of the leaves of `level` that touch the range, ordered. In a time that does
  // not grow with what of the range is not mapped.
  std::vector<Gfn> MappedIn(Level level, GfnRange range) const {
    std::vector<Gfn> mapped;
    if (range.empty()) return mapped;
    const uint64_t first = NumberOf(level, range.first);
    const uint64_t last = NumberOf(level, range.end() - 1);
    const auto add = [&](uint64_t number, const Chunk& chunk) {
      for (uint64_t i = 0; i < kHeads; ++i) {
        const uint64_t at = number * kHeads + i;
        if (at < first || at > last || chunk.heads[i].empty()) continue;
        mapped.push_back(Gfn(at * FramesPerEntry(level)));
      }
    };
    const Chunks& chunks = levels_[static_cast<size_t>(level) - 1];
    if (last / kHeads - first / kHeads < chunks.size()) {
      for (uint64_t number = first / kHeads; number <= last / kHeads; ++number) {
        if (const auto chunk = chunks.find(number); chunk != chunks.end()) {
          add(number, *chunk->second);
        }
      }
      return mapped;
    }
    for (const auto& [number, chunk] : chunks) {
      if (number >= first / kHeads && number <= last / kHeads) add(number, *chunk);
    }
    std::sort(mapped.begin(), mapped.end());
    return mapped;
  }
  uint64_t mappings() const { return mappings_; }

 private:
  static constexpr uint64_t kHeads = kEntriesPerTable;
  struct Chunk {
    std::array<SlotList, kHeads> heads;
    uint32_t used = 0;  // heads that are not empty
  };
  using Chunks = std::unordered_map<uint64_t, std::unique_ptr<Chunk>>;

  static uint64_t NumberOf(Level level, Gfn gfn) { return gfn.value / FramesPerEntry(level); }
  Chunks& OfLevel(Level level) { return levels_[static_cast<size_t>(level) - 1]; }

  std::array<Chunks, 3> levels_;
  uint64_t mappings_ = 0;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_SHADOW_REVERSE_MAP_H_
