// Aligned words of guest memory, each in one access, as a processor makes them.
#ifndef TWINROOT_MMU_VM_GUEST_WORDS_H_
#define TWINROOT_MMU_VM_GUEST_WORDS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace twinroot::mmu {

// Calls `function(word)` with the word of that size at `at`, as an atomic_ref.
template <typename Function>
auto WithGuestWord(std::byte* at, int bytes, const Function& function) {
  switch (bytes) {
    case 1:
      return function(std::atomic_ref<uint8_t>(*reinterpret_cast<uint8_t*>(at)));
    case 2:
      return function(std::atomic_ref<uint16_t>(*reinterpret_cast<uint16_t*>(at)));
    case 4:
      return function(std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t*>(at)));
    default:
      return function(std::atomic_ref<uint64_t>(*reinterpret_cast<uint64_t*>(at)));
  }
}

// `bytes` is 1, 2, 4 or 8, the address a multiple of it.
inline uint64_t LoadGuestBytes(std::byte* at, int bytes) {
  return WithGuestWord(at, bytes, [](auto word) -> uint64_t { return word.load(); });
}
inline void StoreGuestBytes(std::byte* at, int bytes, uint64_t value) {
  WithGuestWord(at, bytes, [value](auto word) {
    word.store(static_cast<typename decltype(word)::value_type>(value));
  });
}
// False: another word stands there.
inline bool ExchangeGuestBytes(std::byte* at, int bytes, uint64_t expected, uint64_t desired) {
  return WithGuestWord(at, bytes, [=](auto word) {
    auto was = static_cast<typename decltype(word)::value_type>(expected);
    return word.compare_exchange_strong(was,
                                        static_cast<typename decltype(word)::value_type>(desired));
  });
}

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_GUEST_WORDS_H_
