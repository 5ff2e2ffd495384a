// Memory of a guest for tests: pages that are there, read and exchanged as words. What happens
// between a read and an exchange can be staged.
#ifndef TWINROOT_TESTS_MMU_SHADOW_GUEST_WORDS_H_
#define TWINROOT_TESTS_MMU_SHADOW_GUEST_WORDS_H_

#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <vector>

#include "mmu/shadow/guest_memory.h"
#include "mmu/types/address.h"

namespace twinroot::mmu {

// Pages 0 to `pages` - 1, all zero. Not thread-safe.
class GuestWords : public GuestMemory {
 public:
  explicit GuestWords(size_t pages) : bytes_(pages * kPageSize) {}

  std::optional<uint64_t> Read(Gpa word, int bytes) override {
    ++reads;
    if (!Holds(word, bytes)) return std::nullopt;
    return Load(word.value, bytes);
  }
  Exchange CompareExchange(Gpa word, int bytes, uint64_t expected, uint64_t desired) override {
    if (before_exchange) before_exchange();
    if (!Holds(word, bytes)) return Exchange::kNothing;
    if (Load(word.value, bytes) != expected) return Exchange::kChanged;
    Store(word.value, desired, bytes);
    return Exchange::kDone;
  }

  uint64_t Load(uint64_t at, int bytes = 8) const {
    uint64_t value = 0;
    std::memcpy(&value, &bytes_.at(at), static_cast<size_t>(bytes));
    return value;
  }
  void Store(uint64_t at, uint64_t value, int bytes = 8) {
    std::memcpy(&bytes_.at(at), &value, static_cast<size_t>(bytes));
  }
  bool Holds(Gpa word, int bytes) const {
    return word.value < bytes_.size() && static_cast<uint64_t>(bytes) <= bytes_.size() - word.value;
  }

  uint64_t reads = 0;
  std::function<void()> before_exchange;

 private:
  std::vector<uint8_t> bytes_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_MMU_SHADOW_GUEST_WORDS_H_
