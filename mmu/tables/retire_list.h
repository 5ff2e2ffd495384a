// Objects that readers may still look at: freed together, after an epoch.
// Used by the holder of one lock (the Turn); not inside an EpochGuard.
#ifndef TWINROOT_MMU_TABLES_RETIRE_LIST_H_
#define TWINROOT_MMU_TABLES_RETIRE_LIST_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "mmu/tables/epoch.h"

namespace twinroot::mmu {

class RetireList {
 public:
  // `object` is out of reach for new readers. May wait for an epoch, now and then.
  template <typename T>
  void Add(const T* object) {
    if (object == nullptr) return;
    objects_.push_back(std::shared_ptr<const T>(object));
    if (objects_.size() < kMany) return;
    SynchronizeEpoch();
    objects_.clear();
  }

 private:
  static constexpr size_t kMany = 64;
  std::vector<std::shared_ptr<const void>> objects_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TABLES_RETIRE_LIST_H_
