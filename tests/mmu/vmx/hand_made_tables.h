// Physical memory in which a test writes EPT tables by hand, as raw words: nothing of mmu/hw helps,
// so that the walker is compared with the manual and not with itself.
#ifndef TWINROOT_TESTS_MMU_VMX_HAND_MADE_TABLES_H_
#define TWINROOT_TESTS_MMU_VMX_HAND_MADE_TABLES_H_

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "mmu/types/address.h"
#include "mmu/vmx/physical_memory.h"

namespace twinroot::mmu::vmx {

// One area of memory at kBase, given out page by page. Thread-safe.
class HandMadeTables : public PhysicalMemory {
 public:
  static constexpr uint64_t kBase = uint64_t{5} << 30;
  static constexpr uint64_t kRwx = 7;
  static constexpr uint64_t kWriteBack = 6 << 3;
  static constexpr uint64_t kLargePage = 1 << 7;

  explicit HandMadeTables(size_t pages = 256) : words_(pages * 512) {}

  std::byte* At(Hpa hpa, size_t size) override {
    const uint64_t bytes = words_.size() * 8;
    if (hpa.value < kBase || hpa.value - kBase > bytes || size > bytes - (hpa.value - kBase)) {
      return nullptr;
    }
    return reinterpret_cast<std::byte*>(words_.data()) + (hpa.value - kBase);
  }

  // A zeroed page.
  uint64_t NewPage() {
    std::lock_guard lock(mutex_);
    const uint64_t page = next_;
    next_ += 4096;
    return page;
  }

  uint64_t Load(uint64_t hpa) { return Word(hpa).load(); }
  void Store(uint64_t hpa, uint64_t value) { Word(hpa).store(value); }

  // Returns when another thread has changed the word; false: not within ten seconds.
  bool WaitForStore(uint64_t hpa) {
    const uint64_t was = Load(hpa);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (Load(hpa) == was) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::yield();
    }
    return true;
  }

  // Where the entry for `gpa` at `level` (1: PT) lies, below a root of `levels`; tables on the way
  // are made. The hand-made links grant everything.
  uint64_t Slot(uint64_t root, int levels, uint64_t gpa, int level) {
    std::lock_guard lock(walk_mutex_);
    uint64_t table = root;
    for (int at = levels;; --at) {
      const uint64_t slot = table + ((gpa >> (12 + 9 * (at - 1))) & 511) * 8;
      if (at == level) return slot;
      if (Load(slot) == 0) Store(slot, NewPage() | kRwx);
      table = Load(slot) & 0x000FFFFFFFFFF000;
    }
  }
  // Maps the 4K page of `gpa` to `page` with rights (R 1, W 2, X 4).
  void Map4K(uint64_t root, uint64_t gpa, uint64_t page, uint64_t rights = kRwx, int levels = 4) {
    Store(Slot(root, levels, gpa, 1), page | kWriteBack | rights);
  }
  void Unmap4K(uint64_t root, uint64_t gpa, int levels = 4) {
    Store(Slot(root, levels, gpa, 1), 0);
  }

 private:
  std::atomic_ref<uint64_t> Word(uint64_t hpa) {
    return std::atomic_ref<uint64_t>(words_.at((hpa - kBase) / 8));
  }

  std::vector<uint64_t> words_;
  std::mutex mutex_;
  std::mutex walk_mutex_;
  uint64_t next_ = kBase;
};

}  // namespace twinroot::mmu::vmx

#endif  // TWINROOT_TESTS_MMU_VMX_HAND_MADE_TABLES_H_
