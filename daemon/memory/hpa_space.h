// The daemon's own physical address space: hands out ranges of host physical addresses (HPAs) to
// backings and table pools, so that a table entry is a bit-exact word and no two VMs share a frame.
// Thread-safe.
#ifndef TWINROOT_DAEMON_MEMORY_HPA_SPACE_H_
#define TWINROOT_DAEMON_MEMORY_HPA_SPACE_H_

#include <cstdint>
#include <map>
#include <mutex>

#include "absl/status/statusor.h"
#include "mmu/types/address.h"

namespace twinroot::memory {

class HpaSpace;

// A range of HPAs, given back when destroyed. Movable.
class HpaRange {
 public:
  HpaRange() = default;
  HpaRange(HpaRange&& other) noexcept { *this = std::move(other); }
  HpaRange& operator=(HpaRange&& other) noexcept;
  ~HpaRange();

  mmu::Hpa base() const { return base_; }
  uint64_t size() const { return size_; }

 private:
  friend class HpaSpace;
  HpaRange(HpaSpace* space, mmu::Hpa base, uint64_t size)
      : space_(space), base_(base), size_(size) {}

  HpaSpace* space_ = nullptr;
  mmu::Hpa base_;
  uint64_t size_ = 0;
};

class HpaSpace {
 public:
  // Huge leaves of guest memory need no more than this.
  static constexpr uint64_t kAlignment = uint64_t{1} << 30;

  // Addresses of at most `width` bits (39 to 52). The first GiB is never handed out: HPA 0 then
  // means nothing.
  explicit HpaSpace(int width = 52);

  // A range of at least `size` bytes, rounded up to kAlignment. kResourceExhausted: none left.
  absl::StatusOr<HpaRange> Allocate(uint64_t size);

 private:
  friend class HpaRange;
  void Free(mmu::Hpa base, uint64_t size);

  std::mutex mutex_;
  std::map<uint64_t, uint64_t> free_;  // base -> size; neighbours are merged
};

}  // namespace twinroot::memory

#endif  // TWINROOT_DAEMON_MEMORY_HPA_SPACE_H_
