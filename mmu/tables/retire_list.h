// Objects that readers may still look at: freed together, after an epoch.
//
// Used by the holder of one lock (the Turn); not inside an EpochGuard. Needs no memory, so what is
// taken out of reach in the last step of a change cannot fail there: whenever kMost wait, the list
// waits for an epoch and is empty again.
#ifndef TWINROOT_MMU_TABLES_RETIRE_LIST_H_
#define TWINROOT_MMU_TABLES_RETIRE_LIST_H_

#include <array>
#include <cstddef>

#include "mmu/tables/epoch.h"

namespace twinroot::mmu {

class RetireList {
 public:
  static constexpr size_t kMost = 32;

  RetireList() = default;
  // No reader is left.
  ~RetireList() { Free(); }
  RetireList(const RetireList&) = delete;
  RetireList& operator=(const RetireList&) = delete;

  // `object`, made by new, is out of reach for new readers. Null is nothing.
  template <typename T>
  void Add(const T* object) noexcept {
    if (object == nullptr) return;
    objects_[size_++] = {object, [](const void* at) { delete static_cast<const T*>(at); }};
    if (size_ < kMost) return;
    SynchronizeEpoch();
    Free();
  }

 private:
  struct Retired {
    const void* object;
    void (*free)(const void*);
  };
  void Free() {
    while (size_ > 0) {
      const Retired& last = objects_[--size_];
      last.free(last.object);
    }
  }

  std::array<Retired, kMost> objects_;
  size_t size_ = 0;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TABLES_RETIRE_LIST_H_
