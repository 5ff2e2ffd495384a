#include "mmu/vm/invalidation_seq.h"

#include <algorithm>
#include <bitset>
#include <memory>
#include <utility>

namespace twinroot::mmu {

bool InvalidationSeq::Beside(const EpochGuard&, GfnRange leaf, uint64_t word) const {
  const std::vector<GfnRange>* ranges = ranges_.load(std::memory_order_acquire);
  // If that change has ended, these are the ranges of another.
  if (ranges == nullptr || ShardOf(leaf.first).load(std::memory_order_acquire) != word) {
    return false;
  }
  // The first range that ends behind the leaf's first frame is the only candidate.
  const auto it =
      std::upper_bound(ranges->begin(), ranges->end(), leaf.first,
                       [](Gfn first, const GfnRange& range) { return first < range.end(); });
  return it == ranges->end() || !it->Overlaps(leaf);
}

template <typename Function>
void InvalidationSeq::ForEachShard(const std::vector<GfnRange>& ranges, const Function& function) {
  std::bitset<kShards> touched;
  for (const GfnRange& range : ranges) {
    const uint64_t last = ShardNumber(range.end() - 1);
    for (uint64_t n = ShardNumber(range.first); n <= last && !touched.all(); ++n) {
      touched.set(n % kShards);
    }
  }
  for (size_t i = 0; i < kShards; ++i) {
    if (touched[i]) function(shards_[i].word);
  }
}

void InvalidationSeq::Begin(const Turn&, std::vector<GfnRange> ranges) {
  const auto* now = new std::vector<GfnRange>(std::move(ranges));
  ranges_.store(now, std::memory_order_release);
  ForEachShard(*now, [](std::atomic<uint64_t>& word) { word.fetch_or(kBegun); });
  invalidations_.fetch_add(1, std::memory_order_relaxed);
}

void InvalidationSeq::End(const Turn&) {
  const std::vector<GfnRange>* ended = ranges_.load(std::memory_order_relaxed);
  ForEachShard(*ended, [](std::atomic<uint64_t>& word) {
    word.store((word.load(std::memory_order_relaxed) & ~kBegun) + kOneEnded);
  });
  ranges_.store(nullptr, std::memory_order_release);
  retired_.Add(ended);
}

}  // namespace twinroot::mmu
