// The nodes of the attribute map.
//
//   trunk[0] covers frames [0, 2M), trunk[1] [2M, 128M), trunk[2] [128M, 1G), trunk[3] [1G, 64G)
//   ...
//
//   a word of tier 3 -> 64 words of 1G, tier 2 -> 8 of 128M, tier 1 -> 64 of 2M, tier 0 -> a leaf
//   A word is the attributes of everything below it, or a pointer to its split.
//   Leaf of 512 frames: narrow, one bit a frame, if nothing is denied; else wide, four bits a
//   frame.
//
// Tiers are thinner than levels, and every level's span is the span of some tier. So a split costs
// 72 or 520 bytes, which malloc hands out fast, instead of a page. Frame g starts at the word of
// the trunk that its highest bit names: no root has to grow, and a small guest walks no empty
// tiers. (Entry 0 of a split of the trunk above tier 0 stands for what lower words cover; it is not
// used.)
#ifndef TWINROOT_MMU_VM_ATTRIBUTE_NODE_H_
#define TWINROOT_MMU_VM_ATTRIBUTE_NODE_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <utility>

#include "mmu/types/gfn_range.h"
#include "mmu/types/level.h"
#include "mmu/types/memory_attributes.h"

namespace twinroot::mmu {

// Bits of a gfn that a split of each tier tells apart.
inline constexpr int kAttributeTierBits[] = {9, 6, 3, 6, 3, 6, 3, 6, 3};
inline constexpr int kAttributeTiers = std::size(kAttributeTierBits);

// Bits of a gfn below a word of each tier.
inline constexpr auto kAttributeSpanBits = [] {
  std::array<int, kAttributeTiers> bits{};
  int sum = 0;
  for (int tier = 0; tier < kAttributeTiers; ++tier) bits[tier] = sum += kAttributeTierBits[tier];
  return bits;
}();
static_assert(kAttributeSpanBits[0] == 1 * kIndexBits);  // Level::k2M
static_assert(kAttributeSpanBits[2] == 2 * kIndexBits);  // Level::k1G
static_assert(kAttributeSpanBits[4] == 3 * kIndexBits);  // Level::k512G
static_assert(kAttributeSpanBits[6] == 4 * kIndexBits);  // Level::k256T
static_assert(kAttributeSpanBits[8] == 5 * kIndexBits);  // the widest guest

// The word of the trunk that covers a gfn. Compared upwards and not asked of the bit width: the
// processor guesses comparisons, and BSR waits for the last value of its target register besides.
constexpr int AttributeTierOf(Gfn gfn) {
  int tier = 0;
  while (tier < kAttributeTiers - 1 && gfn.value >> kAttributeSpanBits[tier] != 0) ++tier;
  return tier;
}

constexpr uint64_t AttributeSpan(int tier) { return uint64_t{1} << kAttributeSpanBits[tier]; }
// Of the split of a word of `tier`, which is not 0.
constexpr size_t AttributeFanOut(int tier) { return size_t{1} << kAttributeTierBits[tier]; }
constexpr size_t AttributeIndex(int tier, Gfn gfn) {
  return gfn.value >> kAttributeSpanBits[tier - 1] & (AttributeFanOut(tier) - 1);
}

struct AttributeNode {
  AttributeNode* next_retired = nullptr;  // the writer's, once the node is out of the tree
};

// Uniform attributes, or a pointer to an AttributeNode; the low bits tell which.
using AttributeWord = std::atomic<uintptr_t>;

// The split of a word of tier 1 and up; `kFanOut` words follow.
template <size_t kFanOut>
struct AttributeSplit : AttributeNode {
  explicit AttributeSplit(uintptr_t word) {
    for (AttributeWord& child : children) child.store(word, std::memory_order_relaxed);
  }
  AttributeWord children[kFanOut];
};
using AttributeSplitOf8 = AttributeSplit<8>;
using AttributeSplitOf64 = AttributeSplit<64>;
static_assert(sizeof(AttributeSplitOf8) == sizeof(AttributeNode) + 8 * sizeof(AttributeWord));
inline AttributeWord* AttributeChildren(uintptr_t split) {
  return reinterpret_cast<AttributeWord*>(reinterpret_cast<AttributeNode*>(split) + 1);
}

// The split of a word of tier 0: `kBits` of MemoryAttributes::word() for each frame.
template <int kBits>
struct AttributeLeaf : AttributeNode {
  static constexpr int kWordBits = 64;
  static constexpr uint64_t kFramesPerWord = kWordBits / kBits;
  static constexpr uint64_t kOne = (uint64_t{1} << kBits) - 1;  // all bits of one frame
  // The word in which every frame has `value`.
  static constexpr uint64_t Repeat(uint8_t value) { return ~uint64_t{0} / kOne * value; }

  explicit AttributeLeaf(uint8_t value) {
    for (auto& word : words) word.store(Repeat(value), std::memory_order_relaxed);
  }

  uint8_t Get(uint64_t frame) const {
    const uint64_t word = words[frame / kFramesPerWord].load(std::memory_order_acquire);
    return word >> (frame % kFramesPerWord * kBits) & kOne;
  }
  void Set(uint64_t first, uint64_t count, uint8_t value) {
    for (uint64_t i = first; i < first + count;) {
      const uint64_t at = i % kFramesPerWord;
      const uint64_t n = std::min(kFramesPerWord - at, first + count - i);
      const uint64_t mask = ~uint64_t{0} >> (kWordBits - n * kBits) << (at * kBits);
      auto& word = words[i / kFramesPerWord];
      const uint64_t old = word.load(std::memory_order_relaxed);
      word.store((old & ~mask) | (Repeat(value) & mask), std::memory_order_release);
      i += n;
    }
  }
  // The value at `frame`, and for how many frames of the same word it goes on.
  std::pair<uint8_t, uint64_t> RunAt(uint64_t frame) const {
    const uint64_t at = frame % kFramesPerWord;
    const uint64_t word =
        words[frame / kFramesPerWord].load(std::memory_order_acquire) >> (at * kBits);
    const auto value = static_cast<uint8_t>(word & kOne);
    const uint64_t same = std::countr_zero(word ^ Repeat(value)) / kBits;
    return {value, std::min(same, kFramesPerWord - at)};
  }
  // The value of all frames, if it is one.
  std::optional<uint8_t> Common() const {
    const uint64_t first = words[0].load(std::memory_order_relaxed);
    if (first != Repeat(first & kOne)) return std::nullopt;
    for (const auto& word : words) {
      if (word.load(std::memory_order_relaxed) != first) return std::nullopt;
    }
    return static_cast<uint8_t>(first & kOne);
  }

  std::atomic<uint64_t> words[kEntriesPerTable / kFramesPerWord];
};
// Holds only values that deny nothing: 0 and 1.
using AttributeNarrowLeaf = AttributeLeaf<1>;
using AttributeWideLeaf = AttributeLeaf<kMemoryAttributesBits>;
static_assert(MemoryAttributes{MemoryKind::kPrivate}.word() == 0);
static_assert(MemoryAttributes{MemoryKind::kShared}.word() == 1);
constexpr bool FitsNarrowLeaf(uint8_t value) { return value <= 1; }

inline constexpr uintptr_t kUniformTag = 1;
inline constexpr uintptr_t kWideTag = 2;
inline constexpr uintptr_t kAttributeTags = kUniformTag | kWideTag;
static_assert(alignof(AttributeNode) > kAttributeTags);

constexpr bool IsUniform(uintptr_t word) { return word & kUniformTag; }
constexpr uintptr_t UniformWord(uint8_t value) {
  return uintptr_t{value} * (kAttributeTags + 1) | kUniformTag;
}
constexpr uint8_t UniformValue(uintptr_t word) {
  return static_cast<uint8_t>(word / (kAttributeTags + 1));
}
inline constexpr uintptr_t kNeverSet = UniformWord(MemoryAttributes{}.word());

inline bool IsWide(uintptr_t leaf) { return leaf & kWideTag; }
inline AttributeNode* NodeOf(uintptr_t split) {
  return reinterpret_cast<AttributeNode*>(split & ~kAttributeTags);
}
// Calls `f` with the leaf as what it is.
template <typename F>
auto WithLeaf(uintptr_t leaf, F&& f) {
  return IsWide(leaf) ? f(*static_cast<AttributeWideLeaf*>(NodeOf(leaf)))
                      : f(*static_cast<AttributeNarrowLeaf*>(NodeOf(leaf)));
}

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_ATTRIBUTE_NODE_H_
