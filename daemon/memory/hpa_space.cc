#include "daemon/memory/hpa_space.h"

#include <iterator>
#include <utility>

namespace twinroot::memory {

HpaRange& HpaRange::operator=(HpaRange&& other) noexcept {
  std::swap(space_, other.space_);
  std::swap(base_, other.base_);
  std::swap(size_, other.size_);
  return *this;
}

HpaRange::~HpaRange() {
  if (space_ != nullptr) space_->Free(base_, size_);
}

HpaSpace::HpaSpace(int width) { free_.emplace(kAlignment, (uint64_t{1} << width) - kAlignment); }

absl::StatusOr<HpaRange> HpaSpace::Allocate(uint64_t size) {
  const uint64_t rounded = (size + kAlignment - 1) / kAlignment * kAlignment;
  std::lock_guard lock(mutex_);
  for (auto it = free_.begin(); it != free_.end(); ++it) {
    if (it->second < rounded) continue;
    const auto [base, available] = *it;
    free_.erase(it);
    if (available > rounded) free_.emplace(base + rounded, available - rounded);
    return HpaRange(this, mmu::Hpa(base), rounded);
  }
  return absl::ResourceExhaustedError(
      "no host physical address space is left for the VM's memory; delete VMs that are not needed");
}

void HpaSpace::Free(mmu::Hpa base, uint64_t size) {
  std::lock_guard lock(mutex_);
  auto next = free_.lower_bound(base.value);
  uint64_t start = base.value;
  if (next != free_.end() && start + size == next->first) {
    size += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin()) {
    const auto previous = std::prev(next);
    if (previous->first + previous->second == start) {
      start = previous->first;
      size += previous->second;
      free_.erase(previous);
    }
  }
  free_.emplace(start, size);
}

}  // namespace twinroot::memory
