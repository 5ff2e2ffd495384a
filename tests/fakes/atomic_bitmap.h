// A set of small numbers. Thread-safe; each number by itself, in no order with anything else.
#ifndef TWINROOT_TESTS_FAKES_ATOMIC_BITMAP_H_
#define TWINROOT_TESTS_FAKES_ATOMIC_BITMAP_H_

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>

namespace twinroot::mmu {

class AtomicBitmap {
 public:
  explicit AtomicBitmap(uint64_t size)
      : words_((size + kBits - 1) / kBits), bits_(new std::atomic<uint64_t>[words_]()) {}

  void Set(uint64_t i) {
    std::atomic<uint64_t>& word = bits_[i / kBits];
    const uint64_t bit = uint64_t{1} << i % kBits;
    if (!(word.load(std::memory_order_relaxed) & bit)) {
      word.fetch_or(bit, std::memory_order_relaxed);
    }
  }
  void SetRange(uint64_t first, uint64_t count) {
    ForEachWord(first, count, [](std::atomic<uint64_t>& word, uint64_t, uint64_t mask) {
      word.fetch_or(mask, std::memory_order_relaxed);
    });
  }
  // Takes out what is in the range, and calls `visit` for each.
  template <typename Visit>
  void Take(uint64_t first, uint64_t count, const Visit& visit) {
    ForEachWord(first, count, [&](std::atomic<uint64_t>& word, uint64_t base, uint64_t mask) {
      if (!(word.load(std::memory_order_relaxed) & mask)) return;
      uint64_t taken = word.fetch_and(~mask, std::memory_order_relaxed) & mask;
      for (; taken != 0; taken &= taken - 1) visit(base + std::countr_zero(taken));
    });
  }
  // Calls `visit` for each in the range.
  template <typename Visit>
  void ForEach(uint64_t first, uint64_t count, const Visit& visit) const {
    ForEachWord(first, count, [&](std::atomic<uint64_t>& word, uint64_t base, uint64_t mask) {
      uint64_t in = word.load(std::memory_order_relaxed) & mask;
      for (; in != 0; in &= in - 1) visit(base + std::countr_zero(in));
    });
  }
  uint64_t Count() const {
    uint64_t n = 0;
    for (uint64_t i = 0; i < words_; ++i) {
      n += static_cast<uint64_t>(std::popcount(bits_[i].load(std::memory_order_relaxed)));
    }
    return n;
  }

 private:
  static constexpr uint64_t kBits = 64;

  template <typename Function>
  void ForEachWord(uint64_t first, uint64_t count, const Function& function) const {
    for (uint64_t i = first; i < first + count;) {
      const uint64_t at = i % kBits;
      const uint64_t n = std::min(kBits - at, first + count - i);
      const uint64_t mask = (n == kBits ? ~uint64_t{0} : (uint64_t{1} << n) - 1) << at;
      function(bits_[i / kBits], i - at, mask);
      i += n;
    }
  }

  const uint64_t words_;
  const std::unique_ptr<std::atomic<uint64_t>[]> bits_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_FAKES_ATOMIC_BITMAP_H_
