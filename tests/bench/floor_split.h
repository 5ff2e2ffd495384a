// The floor of splitting: a page filled with the 512 words below a large leaf, and put in the
// leaf's place. No books, no pool.
#ifndef TWINROOT_TESTS_BENCH_FLOOR_SPLIT_H_
#define TWINROOT_TESTS_BENCH_FLOOR_SPLIT_H_

#include <cstddef>
#include <cstdint>

#include "mmu/types/address.h"
#include "tests/bench/floor_tables.h"

namespace twinroot::bench {

class FloorSplit {
 public:
  // `step`: bytes from one entry of the new table to the next.
  static void Split(FloorTables::Word& slot, std::byte* page, uint64_t step) {
    uint64_t large = slot.load(std::memory_order_acquire);
    Fill(page, large, step);
    slot.compare_exchange_strong(large, reinterpret_cast<uint64_t>(page) | FloorTables::kPresent,
                                 std::memory_order_acq_rel);
  }

 private:
  using EightWords = uint64_t __attribute__((vector_size(64)));

  // The same loop for processors with and without AVX-512: the floor is what the machine can do.
  [[gnu::always_inline]] static inline void FillBy(std::byte* page, uint64_t first, uint64_t step) {
    constexpr uint64_t kLanes = sizeof(EightWords) / sizeof(uint64_t);
    EightWords next{};
    for (uint64_t lane = 0; lane < kLanes; ++lane) next[lane] = first + lane * step;
    auto* const words = reinterpret_cast<EightWords*>(page);
    for (uint64_t i = 0; i < mmu::kEntriesPerTable / kLanes; ++i) {
      words[i] = next;
      next += kLanes * step;
    }
  }
  [[gnu::target("avx512f")]] static void FillAvx512(std::byte* page, uint64_t first,
                                                    uint64_t step) {
    FillBy(page, first, step);
  }
  static void FillPlain(std::byte* page, uint64_t first, uint64_t step) {
    FillBy(page, first, step);
  }
  static void Fill(std::byte* page, uint64_t first, uint64_t step) {
    static const bool avx512 = __builtin_cpu_supports("avx512f");
    avx512 ? FillAvx512(page, first, step) : FillPlain(page, first, step);
  }
};

}  // namespace twinroot::bench

#endif  // TWINROOT_TESTS_BENCH_FLOOR_SPLIT_H_
