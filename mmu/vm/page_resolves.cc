#include "mmu/vm/page_resolves.h"

#include <new>
#include <thread>

namespace twinroot::mmu {

PageResolves::~PageResolves() {
  for (auto& lane : lanes_) delete lane.load(std::memory_order_relaxed);
}

PageResolves::Resolve::Resolve(const EpochGuard&, PageResolves& all, Gfn gfn)
    : common_(all.common_), lane_(all.Mine()) {
  // Whoever synchronizes epochs after this guard sees it.
  if (lane_ != nullptr) {
    lane_->store(gfn.value + 1, std::memory_order_relaxed);
  } else {
    common_.fetch_add(1, std::memory_order_relaxed);
  }
}

PageResolves::Resolve::~Resolve() {
  if (lane_ != nullptr) {
    lane_->store(kNothing, std::memory_order_release);
  } else {
    common_.fetch_sub(1, std::memory_order_release);
  }
}

void PageResolves::WaitFor(GfnRange range) const {
  // Whoever still found the memslot has left its guard, and is in the books.
  SynchronizeEpoch();
  for (const auto& slot : lanes_) {
    const Lane* lane = slot.load(std::memory_order_acquire);
    if (lane == nullptr) continue;
    const auto asks = [&] {
      const uint64_t word = lane->word.load(std::memory_order_acquire);
      return word != kNothing && range.Contains(Gfn(word - 1));
    };
    while (asks()) std::this_thread::yield();
  }
  while (common_.load(std::memory_order_acquire) != 0) std::this_thread::yield();
}

std::atomic<uint64_t>* PageResolves::Mine() {
  const uint32_t index = EpochThread::Index();
  if (index >= kLanes) return nullptr;
  Lane* lane = lanes_[index].load(std::memory_order_relaxed);
  if (lane == nullptr) {
    // Only this thread makes the lane of its index.
    lane = new (std::nothrow) Lane;
    lanes_[index].store(lane, std::memory_order_release);
  }
  return lane == nullptr ? nullptr : &lane->word;
}

}  // namespace twinroot::mmu
