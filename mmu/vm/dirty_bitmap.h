// One bit for each page of a memslot, set by faults, taken by the harvester.
// Thread-safe: single words are exchanged. Words are of 64 pages, aligned to 64 frames of the
// guest.
#ifndef TWINROOT_MMU_VM_DIRTY_BITMAP_H_
#define TWINROOT_MMU_VM_DIRTY_BITMAP_H_

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "mmu/types/gfn_range.h"

namespace twinroot::mmu {

class DirtyBitmap {
 public:
  static constexpr uint64_t kWordBits = 64;

  // Null: no memory. All clear; memory is taken page by page as bits are set.
  static std::shared_ptr<DirtyBitmap> Create(GfnRange slot) {
    std::shared_ptr<DirtyBitmap> bitmap(new DirtyBitmap(slot));
    return bitmap->words_ != nullptr ? bitmap : nullptr;
  }

  GfnRange slot() const { return slot_; }
  // The frame of bit 0 of word 0; a multiple of 64.
  Gfn first() const { return first_; }
  uint64_t words() const { return count_; }

  void Mark(Gfn gfn) {
    std::atomic<uint64_t>& word = words_[(gfn - first_) / kWordBits];
    const uint64_t bit = uint64_t{1} << (gfn - first_) % kWordBits;
    // A page that is written again and again costs a read.
    if (!(word.load(std::memory_order_relaxed) & bit)) word.fetch_or(bit);
  }
  // `range` lies in the slot.
  void MarkRange(GfnRange range) {
    for (uint64_t i = 0; i < range.count;) {
      const uint64_t at = (range.first + i - first_) % kWordBits;
      const uint64_t n = std::min(kWordBits - at, range.count - i);
      words_[(range.first + i - first_) / kWordBits].fetch_or((~uint64_t{0} >> (kWordBits - n))
                                                              << at);
      i += n;
    }
  }
  uint64_t Word(uint64_t i) const { return words_[i].load(std::memory_order_acquire); }
  uint64_t Take(uint64_t i, uint64_t mask) {
    const uint64_t now = words_[i].load(std::memory_order_acquire);
    return now & mask ? words_[i].fetch_and(~mask) & mask : 0;
  }

 private:
  explicit DirtyBitmap(GfnRange slot)
      : slot_(slot),
        first_(slot.first - slot.first.value % kWordBits),
        count_((slot.end() - first_ + kWordBits - 1) / kWordBits),
        // Zeroed by the system where it is large: nothing is touched before a bit is set.
        words_(static_cast<std::atomic<uint64_t>*>(
            std::calloc(count_, sizeof(std::atomic<uint64_t>)))) {}

  struct Free {
    void operator()(std::atomic<uint64_t>* words) const { std::free(words); }
  };

  const GfnRange slot_;
  const Gfn first_;
  const uint64_t count_;
  const std::unique_ptr<std::atomic<uint64_t>[], Free> words_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_DIRTY_BITMAP_H_
