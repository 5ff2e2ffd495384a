// Zeroed memory in huge pages, every page touched: no row but one that says so pays for first use.
#ifndef TWINROOT_TESTS_BENCH_ARENA_H_
#define TWINROOT_TESTS_BENCH_ARENA_H_

#include <emmintrin.h>
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "mmu/types/address.h"
#include "mmu/types/level.h"
#include "tests/bench/clock.h"

namespace twinroot::bench {

class Arena {
 public:
  enum class Pages : uint8_t { kTouched, kUntouched };

  explicit Arena(size_t pages, Pages state = Pages::kTouched)
      : size_(pages * mmu::kPageSize), mapped_size_(size_ + 2 * kHuge) {
    mapped_ = mmap(nullptr, mapped_size_, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    Require(mapped_ != MAP_FAILED, "memory for an arena");
    const uintptr_t at = reinterpret_cast<uintptr_t>(mapped_);
    bytes_ = reinterpret_cast<std::byte*>((at + kHuge - 1) / kHuge * kHuge);
    if (state == Pages::kUntouched) return;
    // Up to the end of the last huge page, so that a small arena is one too.
    madvise(bytes_, (size_ + kHuge - 1) / kHuge * kHuge, MADV_HUGEPAGE);
    std::memset(bytes_, 0, size_);
  }
  ~Arena() { munmap(mapped_, mapped_size_); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  std::byte* bytes() const { return bytes_; }
  size_t pages() const { return size_ / mmu::kPageSize; }

  // Out of every cache.
  void Evict() const {
    constexpr size_t kLine = 64;
    for (size_t at = 0; at < size_; at += kLine) _mm_clflush(bytes_ + at);
    _mm_mfence();
  }

 private:
  static constexpr size_t kHuge = mmu::BytesPerEntry(mmu::Level::k2M);

  const size_t size_;
  const size_t mapped_size_;
  void* mapped_;
  std::byte* bytes_;
};

}  // namespace twinroot::bench

#endif  // TWINROOT_TESTS_BENCH_ARENA_H_
