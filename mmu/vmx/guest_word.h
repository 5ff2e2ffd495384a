// The bytes of one access. Aligned accesses are single-copy atomic and ordered as on the real
// processor (TSO). `size` is 1, 2, 4 or 8 and `at` is a multiple of it.
#ifndef TWINROOT_MMU_VMX_GUEST_WORD_H_
#define TWINROOT_MMU_VMX_GUEST_WORD_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace twinroot::mmu::vmx {

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

}  // namespace twinroot::mmu::vmx

#endif  // TWINROOT_MMU_VMX_GUEST_WORD_H_
