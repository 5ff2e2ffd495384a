// Words of guest memory, each in one access. Aligned accesses are single-copy atomic and ordered as
// on the real processor (TSO). `size` is 1, 2, 4 or 8 and `at` is a multiple of it.
#ifndef TWINROOT_MMU_TYPES_GUEST_WORD_H_
#define TWINROOT_MMU_TYPES_GUEST_WORD_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace twinroot::mmu {

template <typename Word>
uint64_t LoadGuest(std::byte* at) {
  return std::atomic_ref<Word>(*reinterpret_cast<Word*>(at)).load(std::memory_order_acquire);
}
template <typename Word>
void StoreGuest(std::byte* at, uint64_t value) {
  std::atomic_ref<Word>(*reinterpret_cast<Word*>(at))
      .store(static_cast<Word>(value), std::memory_order_release);
}

// Zero-extended.
inline uint64_t LoadGuestWord(std::byte* at, int size) {
  switch (size) {
    case 1:
      return LoadGuest<uint8_t>(at);
    case 2:
      return LoadGuest<uint16_t>(at);
    case 4:
      return LoadGuest<uint32_t>(at);
    default:
      return LoadGuest<uint64_t>(at);
  }
}

inline void StoreGuestWord(std::byte* at, int size, uint64_t value) {
  switch (size) {
    case 1:
      return StoreGuest<uint8_t>(at, value);
    case 2:
      return StoreGuest<uint16_t>(at, value);
    case 4:
      return StoreGuest<uint32_t>(at, value);
    default:
      return StoreGuest<uint64_t>(at, value);
  }
}

// Of a paging-structure entry, 4 or 8 bytes: `desired`, if `expected` stands there. What stood
// there.
template <typename Word>
uint64_t ExchangeGuest(std::byte* at, uint64_t expected, uint64_t desired) {
  auto was = static_cast<Word>(expected);
  std::atomic_ref<Word>(*reinterpret_cast<Word*>(at))
      .compare_exchange_strong(was, static_cast<Word>(desired));
  return was;
}
inline uint64_t ExchangeGuestWord(std::byte* at, int size, uint64_t expected, uint64_t desired) {
  return size == 4 ? ExchangeGuest<uint32_t>(at, expected, desired)
                   : ExchangeGuest<uint64_t>(at, expected, desired);
}

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TYPES_GUEST_WORD_H_
