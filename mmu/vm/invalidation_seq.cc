#include "mmu/vm/invalidation_seq.h"

#include <algorithm>
#include <bitset>
#include <utility>

#include "mmu/engine/max_level.h"

namespace twinroot::mmu {

bool InvalidationSeq::UnderWay(const MmuLock::Held&, GfnRange range) const {
  // The first range that ends behind the frame is the only candidate: they are ordered, disjoint.
  const auto it =
      std::upper_bound(held_off_.begin(), held_off_.end(), range.first,
                       [](Gfn first, const GfnRange& held) { return first < held.end(); });
  return it != held_off_.end() && it->Overlaps(range);
}

std::vector<GfnRange> InvalidationSeq::HeldOff(std::vector<GfnRange> ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const GfnRange& a, const GfnRange& b) { return a.first < b.first; });
  std::vector<GfnRange> held;
  held.reserve(ranges.size());
  for (const GfnRange& range : ranges) {
    const Gfn first = LeafRange(range.first, kLargestLeaf).first;
    const Gfn end = LeafRange(range.end() - 1, kLargestLeaf).end();
    if (!held.empty() && first <= held.back().end()) {
      held.back().count = std::max(end, held.back().end()) - held.back().first;
    } else {
      held.push_back({first, end - first});
    }
  }
  return held;
}

void InvalidationSeq::Begin(const MmuLock::Exclusive&, std::vector<GfnRange> held_off) {
  held_off_ = std::move(held_off);
  invalidations_.fetch_add(1, std::memory_order_relaxed);
}

void InvalidationSeq::End(const MmuLock::Exclusive&) {
  std::bitset<kShards> touched;
  for (const GfnRange& range : held_off_) {
    const uint64_t last = ShardNumber(range.end() - 1);
    for (uint64_t n = ShardNumber(range.first); n <= last && !touched.all(); ++n) {
      touched.set(n % kShards);
    }
  }
  for (size_t i = 0; i < kShards; ++i) {
    if (touched[i]) shards_[i].ended.fetch_add(1, std::memory_order_release);
  }
  held_off_.clear();
}

}  // namespace twinroot::mmu
