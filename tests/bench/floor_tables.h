// The floor of everything that walks: a 4-level table of plain words, with as much memory as the
// engine's for the same range. Nothing is counted, checked or reclaimed.
#ifndef TWINROOT_TESTS_BENCH_FLOOR_TABLES_H_
#define TWINROOT_TESTS_BENCH_FLOOR_TABLES_H_

#include <atomic>
#include <cstdint>
#include <cstring>

#include "mmu/types/address.h"
#include "mmu/types/gfn_range.h"
#include "mmu/types/level.h"
#include "tests/bench/arena.h"

namespace twinroot::bench {

class FloorTables {
 public:
  using Word = std::atomic<uint64_t>;
  static constexpr uint64_t kPresent = 0x37;  // what a present word has in its low bits
  static constexpr uint64_t kWritable = 0x2;
  static constexpr uint64_t kDirty = 0x200;

  // Every path down to tables of `leaves` for the range; leaves are empty.
  FloorTables(mmu::GfnRange range, mmu::Level leaves)
      : arena_(PagesFor(range, leaves)), root_(TakePage()) {
    for (mmu::Gfn at = range.first; at < range.end();
         at = at + mmu::FramesPerEntry(mmu::Above(leaves))) {
      Word* table = root_;
      for (mmu::Level level = mmu::Level::k512G; level > leaves; level = mmu::Below(level)) {
        Word& word = table[Index(at, level)];
        if (word.load() == 0) word.store(reinterpret_cast<uint64_t>(TakePage()) | kPresent);
        table = Below(word.load());
      }
    }
  }

  static Word* Below(uint64_t word) {
    return reinterpret_cast<Word*>(word & ~mmu::kPageOffsetMask);
  }
  static uint64_t Index(mmu::Gfn gfn, mmu::Level level) {
    return gfn.value / mmu::FramesPerEntry(level) % mmu::kEntriesPerTable;
  }
  static uint64_t LeafOf(mmu::Gfn gfn) { return gfn.value * mmu::kPageSize | kPresent; }

  // Dependent loads, one for each level above the leaf.
  template <mmu::Level kLeaves = mmu::Level::k4K>
  Word& Slot(mmu::Gfn gfn) const {
    Word* table = root_;
    for (mmu::Level level = mmu::Level::k512G; level > kLeaves; level = mmu::Below(level)) {
      table = Below(table[Index(gfn, level)].load(std::memory_order_acquire));
    }
    return table[Index(gfn, kLeaves)];
  }

  // Load, then CAS from what was loaded; false: it stood already.
  static bool Map(Word& slot, uint64_t leaf) {
    uint64_t now = slot.load(std::memory_order_acquire);
    return now == 0 && slot.compare_exchange_strong(now, leaf, std::memory_order_acq_rel);
  }
  static bool Unmap(Word& slot) {
    uint64_t now = slot.load(std::memory_order_acquire);
    return now != 0 && slot.compare_exchange_strong(now, 0, std::memory_order_acq_rel);
  }

 private:
  static size_t PagesFor(mmu::GfnRange range, mmu::Level leaves) {
    size_t pages = 1;
    for (mmu::Level level = mmu::Level::k512G; level > leaves; level = mmu::Below(level)) {
      const uint64_t frames = mmu::FramesPerEntry(level);
      pages += (range.end().value + frames - 1) / frames - range.first.value / frames;
    }
    return pages;
  }
  Word* TakePage() {
    Require(taken_ < arena_.pages(), "a page of the floor's tables");
    return reinterpret_cast<Word*>(arena_.bytes() + taken_++ * mmu::kPageSize);
  }

  Arena arena_;
  size_t taken_ = 0;
  Word* root_;
};

}  // namespace twinroot::bench

#endif  // TWINROOT_TESTS_BENCH_FLOOR_TABLES_H_
