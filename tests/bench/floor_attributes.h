// Two other ways to keep attributes, as floors: a B-tree of runs, and a 64-way radix tree with a
// word for each page (the shape of Linux's XArray).
#ifndef TWINROOT_TESTS_BENCH_FLOOR_ATTRIBUTES_H_
#define TWINROOT_TESTS_BENCH_FLOOR_ATTRIBUTES_H_

#include <atomic>
#include <cstdint>
#include <iterator>
#include <memory>
#include <vector>

#include "absl/container/btree_map.h"
#include "mmu/types/gfn_range.h"
#include "mmu/types/memory_kind.h"

namespace twinroot::bench {

// Maximal runs, keyed by their first frame; a run ends where the next one begins.
class RunTree {
 public:
  explicit RunTree(mmu::MemoryKind everything) { runs_.emplace(0, everything); }

  mmu::MemoryKind Get(mmu::Gfn gfn) const {
    return std::prev(runs_.upper_bound(gfn.value))->second;
  }

  void Set(mmu::GfnRange range, mmu::MemoryKind kind) {
    const uint64_t first = range.first.value;
    const uint64_t end = range.end().value;
    const mmu::MemoryKind behind = Get(range.end());
    const bool joins_before = first > 0 && Get(mmu::Gfn(first - 1)) == kind;
    const auto from = runs_.lower_bound(first);
    auto to = from;
    while (to != runs_.end() && to->first <= end) ++to;
    auto at = runs_.erase(from, to);
    if (behind != kind) at = runs_.emplace_hint(at, end, behind);
    if (!joins_before) runs_.emplace_hint(at, first, kind);
  }

  size_t size() const { return runs_.size(); }

 private:
  absl::btree_map<uint64_t, mmu::MemoryKind> runs_;
};

// For frames below 64^kHeight.
class PageRadix {
 public:
  static constexpr int kHeight = 4;
  static constexpr uint64_t kFanOut = 64;

  void Set(mmu::Gfn gfn, mmu::MemoryKind kind) {
    Node* node = &root_;
    for (uint64_t span = kTop; span > 1; span /= kFanOut) {
      std::atomic<uintptr_t>& slot = node->slot[gfn.value / span % kFanOut];
      if (slot.load() == 0) {
        nodes_.push_back(std::make_unique<Node>());
        slot.store(reinterpret_cast<uintptr_t>(nodes_.back().get()));
      }
      node = reinterpret_cast<Node*>(slot.load());
    }
    node->slot[gfn.value % kFanOut].store(static_cast<uintptr_t>(kind) + 1);
  }

  // A page that was never set is private.
  mmu::MemoryKind Get(mmu::Gfn gfn) const {
    const Node* node = &root_;
    for (uint64_t span = kTop; span > 1; span /= kFanOut) {
      const uintptr_t below =
          node->slot[gfn.value / span % kFanOut].load(std::memory_order_acquire);
      if (below == 0) return mmu::MemoryKind::kPrivate;
      node = reinterpret_cast<const Node*>(below);
    }
    const uintptr_t word = node->slot[gfn.value % kFanOut].load(std::memory_order_acquire);
    return word == 0 ? mmu::MemoryKind::kPrivate : static_cast<mmu::MemoryKind>(word - 1);
  }

 private:
  static constexpr uint64_t kTop = kFanOut * kFanOut * kFanOut;
  static_assert(kHeight == 4);
  struct Node {
    std::atomic<uintptr_t> slot[kFanOut] = {};
  };
  Node root_;
  std::vector<std::unique_ptr<Node>> nodes_;
};

}  // namespace twinroot::bench

#endif  // TWINROOT_TESTS_BENCH_FLOOR_ATTRIBUTES_H_
