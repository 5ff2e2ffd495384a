#include "mmu/vm/attribute_map.h"

#include <algorithm>
#include <cassert>
#include <new>
#include <optional>
#include <type_traits>

namespace twinroot::mmu {
namespace {

size_t SizeOfSplit(uintptr_t split, int tier) {
  if (tier == 0) return IsWide(split) ? sizeof(AttributeWideLeaf) : sizeof(AttributeNarrowLeaf);
  return AttributeFanOut(tier) == 8 ? sizeof(AttributeSplitOf8) : sizeof(AttributeSplitOf64);
}

void Free(AttributeNode* node) { ::operator delete(node); }

// 0: no memory.
template <typename Node>
uintptr_t New(uintptr_t fill) {
  static_assert(std::is_trivially_destructible_v<Node>);  // Free does not ask what it frees
  void* memory = ::operator new(sizeof(Node), std::nothrow);
  return memory == nullptr ? 0 : reinterpret_cast<uintptr_t>(new (memory) Node(fill));
}

uintptr_t NewWideLeaf(uint8_t value) {
  const uintptr_t leaf = New<AttributeWideLeaf>(value);
  return leaf == 0 ? 0 : leaf | kWideTag;
}

// A split of a uniform word, in which `next` will be set. 0: no memory.
uintptr_t NewSplit(int tier, uint8_t value, uint8_t next) {
  if (tier == 0) {
    return FitsNarrowLeaf(value) && FitsNarrowLeaf(next) ? New<AttributeNarrowLeaf>(value)
                                                         : NewWideLeaf(value);
  }
  return AttributeFanOut(tier) == 8 ? New<AttributeSplitOf8>(UniformWord(value))
                                    : New<AttributeSplitOf64>(UniformWord(value));
}

// What child `index` of a split of `tier` covers; `inside` is some gfn of the split.
GfnRange ChildRange(int tier, Gfn inside, size_t index) {
  const uint64_t span = AttributeSpan(tier - 1);
  return {Gfn(inside.value / AttributeSpan(tier) * AttributeSpan(tier) + index * span), span};
}

GfnRange TrunkRange(int tier) {
  const uint64_t first = tier == 0 ? 0 : AttributeSpan(tier - 1);
  return {Gfn(first), AttributeSpan(tier) - first};
}

// Copies a leaf into one of another width that can hold it.
template <typename To>
void Copy(uintptr_t from, uintptr_t to) {
  To& target = *static_cast<To*>(NodeOf(to));
  WithLeaf(from, [&target](const auto& leaf) {
    for (uint64_t i = 0; i < kEntriesPerTable;) {
      const auto [value, n] = leaf.RunAt(i);
      target.Set(i, n, value);
      i += n;
    }
  });
}

bool NothingDenied(const AttributeWideLeaf& leaf) {
  uint64_t all = 0;
  for (const auto& word : leaf.words) all |= word.load(std::memory_order_relaxed);
  return (all & ~AttributeWideLeaf::Repeat(1)) == 0;
}

// Calls `visit` for the pieces of a part of one word. `range` is inside the word.
template <typename F>
void Visit(uintptr_t word, int tier, GfnRange range, F& visit) {
  if (IsUniform(word)) return visit(range, UniformValue(word));
  if (tier == 0) {
    return WithLeaf(word, [&](const auto& leaf) {
      for (Gfn at = range.first; at < range.end();) {
        const auto [value, same] = leaf.RunAt(at.value % kEntriesPerTable);
        const uint64_t n = std::min(same, range.end() - at);
        visit(GfnRange{at, n}, value);
        at = at + n;
      }
    });
  }
  const AttributeWord* const children = AttributeChildren(word);
  const size_t last = AttributeIndex(tier, range.end() - 1);
  for (size_t i = AttributeIndex(tier, range.first); i <= last; ++i) {
    const GfnRange part = Intersection(ChildRange(tier, range.first, i), range);
    Visit(children[i].load(std::memory_order_acquire), tier - 1, part, visit);
  }
}

template <typename F>
void VisitAll(const AttributeWord* trunk, GfnRange range, F&& visit) {
  if (range.empty()) return;
  const int last = AttributeTierOf(range.end() - 1);
  for (int tier = AttributeTierOf(range.first); tier <= last; ++tier) {
    const GfnRange part = Intersection(TrunkRange(tier), range);
    Visit(trunk[tier].load(std::memory_order_acquire), tier, part, visit);
  }
}

template <int kTier>
[[gnu::always_inline]] inline uintptr_t Descend(uintptr_t word, Gfn gfn, int stop) {
  if constexpr (kTier > 0) {
    if (kTier > stop && !IsUniform(word)) {
      word = AttributeChildren(word)[AttributeIndex(kTier, gfn)].load(std::memory_order_acquire);
      return Descend<kTier - 1>(word, gfn, stop);
    }
  }
  return word;
}

// The word that covers gfn: a uniform one, or that of tier `stop`, if the trunk's is not lower. The
// look-up of every fault: unrolled, so that it shifts by constants.
template <int kTier = 0>
[[gnu::always_inline]] inline uintptr_t WordAt(const AttributeWord* trunk, Gfn gfn, int stop) {
  if constexpr (kTier + 1 < kAttributeTiers) {
    if (gfn.value >> kAttributeSpanBits[kTier] != 0) return WordAt<kTier + 1>(trunk, gfn, stop);
  }
  return Descend<kTier>(trunk[kTier].load(std::memory_order_acquire), gfn, stop);
}

}  // namespace

class AttributeMap::Writer {
 public:
  explicit Writer(AttributeMap& map) : map_(map) {}

  // False: no memory.
  bool Prepare(GfnRange range, uint8_t value) {
    const int first = AttributeTierOf(range.first);
    const int last = AttributeTierOf(range.end() - 1);
    return Split(map_.trunk_[first], first, TrunkRange(first), range, value) &&
           (first == last || Split(map_.trunk_[last], last, TrunkRange(last), range, value));
  }

  void Set(GfnRange range, uint8_t value) {
    const int last = AttributeTierOf(range.end() - 1);
    for (int tier = AttributeTierOf(range.first); tier <= last; ++tier) {
      Fill(map_.trunk_[tier], tier, TrunkRange(tier), range, value);
    }
  }

  void Collapse(GfnRange range) {
    const int first = AttributeTierOf(range.first);
    const int last = AttributeTierOf(range.end() - 1);
    Join(map_.trunk_[first], first, TrunkRange(first), range);
    if (first != last) Join(map_.trunk_[last], last, TrunkRange(last), range);
  }

  // Takes a word that is no longer in the tree, and everything below it.
  void Retire(uintptr_t word, int tier) {
    if (IsUniform(word)) return;
    for (size_t i = 0; tier != 0 && i < AttributeFanOut(tier); ++i) {
      Retire(AttributeChildren(word)[i].load(std::memory_order_relaxed), tier - 1);
    }
    const size_t size = SizeOfSplit(word, tier);
    Count(-size);
    map_.retired_bytes_ += size;
    AttributeNode* const node = NodeOf(word);
    node->next_retired = map_.retired_;
    map_.retired_ = node;
  }

 private:
  bool Split(AttributeWord& word, int tier, GfnRange covered, GfnRange range, uint8_t value) {
    if (range.Contains(covered)) return true;
    uintptr_t now = word.load(std::memory_order_relaxed);
    if (IsUniform(now)) {
      if (UniformValue(now) == value) return true;
      now = NewSplit(tier, UniformValue(now), value);
      if (now == 0) return false;
      Count(SizeOfSplit(now, tier));
      word.store(now, std::memory_order_release);
    }
    if (tier == 0) return IsWide(now) || FitsNarrowLeaf(value) || Widen(word, now);
    // Only the children at the two ends can be covered in part.
    const GfnRange inside = Intersection(covered, range);
    const size_t first = AttributeIndex(tier, inside.first);
    const size_t last = AttributeIndex(tier, inside.end() - 1);
    AttributeWord* const children = AttributeChildren(now);
    const auto split = [&](size_t i) {
      return Split(children[i], tier - 1, ChildRange(tier, inside.first, i), range, value);
    };
    return split(first) && (first == last || split(last));
  }

  void Fill(AttributeWord& word, int tier, GfnRange covered, GfnRange range, uint8_t value) {
    const uintptr_t now = word.load(std::memory_order_relaxed);
    if (range.Contains(covered)) {
      word.store(UniformWord(value), std::memory_order_release);
      Retire(now, tier);
      return;
    }
    if (IsUniform(now)) {
      assert(UniformValue(now) == value);  // else it was not prepared
      return;
    }
    const GfnRange inside = Intersection(covered, range);
    if (tier == 0) {
      assert(IsWide(now) || FitsNarrowLeaf(value));  // else it was not prepared
      WithLeaf(now, [&](auto& leaf) {
        leaf.Set(inside.first.value % kEntriesPerTable, inside.count, value);
      });
      return;
    }
    AttributeWord* const children = AttributeChildren(now);
    const size_t last = AttributeIndex(tier, inside.end() - 1);
    for (size_t i = AttributeIndex(tier, inside.first); i <= last; ++i) {
      Fill(children[i], tier - 1, ChildRange(tier, inside.first, i), range, value);
    }
  }

  // Makes splits along the ends uniform again where they are. True: the word is uniform now.
  bool Join(AttributeWord& word, int tier, GfnRange covered, GfnRange range) {
    const uintptr_t now = word.load(std::memory_order_relaxed);
    if (IsUniform(now)) return true;
    if (range.Contains(covered)) return false;  // neither split nor set by this range
    if (tier == 0) {
      const std::optional<uint8_t> common =
          WithLeaf(now, [](const auto& leaf) { return leaf.Common(); });
      if (!common) return TryToNarrow(word, now), false;
      Replace(word, now, tier, UniformWord(*common));
      return true;
    }
    const GfnRange inside = Intersection(covered, range);
    const size_t first = AttributeIndex(tier, inside.first);
    const size_t last = AttributeIndex(tier, inside.end() - 1);
    AttributeWord* const children = AttributeChildren(now);
    const auto join = [&](size_t i) {
      return Join(children[i], tier - 1, ChildRange(tier, inside.first, i), range);
    };
    const bool first_is_uniform = join(first);
    if ((first != last && !join(last)) || !first_is_uniform) return false;
    const uintptr_t common = children[first].load(std::memory_order_relaxed);
    for (size_t i = AttributeIndex(tier, covered.first); i < AttributeFanOut(tier); ++i) {
      if (children[i].load(std::memory_order_relaxed) != common) return false;
    }
    Replace(word, now, tier, common);
    return true;
  }

  // False: no memory.
  bool Widen(AttributeWord& word, uintptr_t narrow) {
    const uintptr_t wide = NewWideLeaf(0);
    if (wide == 0) return false;
    Copy<AttributeWideLeaf>(narrow, wide);
    Count(sizeof(AttributeWideLeaf));
    Replace(word, narrow, 0, wide);
    return true;
  }

  // Denials are gone from a leaf: it goes back to a bit a frame, unless memory is short.
  void TryToNarrow(AttributeWord& word, uintptr_t now) {
    if (!IsWide(now) || !NothingDenied(*static_cast<AttributeWideLeaf*>(NodeOf(now)))) return;
    const uintptr_t narrow = New<AttributeNarrowLeaf>(0);
    if (narrow == 0) return;
    Copy<AttributeNarrowLeaf>(now, narrow);
    Count(sizeof(AttributeNarrowLeaf));
    Replace(word, now, 0, narrow);
  }

  void Replace(AttributeWord& word, uintptr_t old, int tier, uintptr_t now) {
    word.store(now, std::memory_order_release);
    Retire(old, tier);
  }

  // Only the writer counts, so no locked add.
  void Count(size_t bytes) {
    map_.bytes_.store(map_.bytes_.load(std::memory_order_relaxed) + bytes,
                      std::memory_order_relaxed);
  }

  AttributeMap& map_;
};

AttributeMap::AttributeMap(Gfn limit) : limit_(limit) {
  assert(limit.value <= AttributeSpan(kAttributeTiers - 1));
  for (AttributeWord& word : trunk_) word.store(kNeverSet, std::memory_order_relaxed);
}

AttributeMap::~AttributeMap() {
  for (int tier = 0; tier < kAttributeTiers; ++tier) {
    Writer(*this).Retire(trunk_[tier].exchange(kNeverSet), tier);
  }
  FreeRetired();
}

void AttributeMap::FreeRetired() {
  if (retired_ == nullptr) return;
  SynchronizeEpoch();
  while (retired_ != nullptr) {
    AttributeNode* const node = retired_;
    retired_ = node->next_retired;
    Free(node);
  }
  retired_bytes_ = 0;
}

uint8_t AttributeMap::ValueAt(Gfn gfn) const {
  assert(gfn < limit_);
  const uintptr_t word = WordAt(trunk_, gfn, 0);
  if (IsUniform(word)) return UniformValue(word);
  return WithLeaf(word, [gfn](const auto& leaf) { return leaf.Get(gfn.value % kEntriesPerTable); });
}

bool AttributeMap::UniformAt(const MmuRead&, Gfn gfn, Level level) const {
  assert(gfn < limit_);
  if (level == Level::k4K) return true;
  const uint64_t frames = FramesPerEntry(level);
  if (gfn.value < frames) {
    // The first leaf of a level is all words of the trunk up to it.
    const uintptr_t first = trunk_[0].load(std::memory_order_acquire);
    bool uniform = IsUniform(first);
    for (int tier = 1; uniform && AttributeSpan(tier) <= frames; ++tier) {
      uniform = trunk_[tier].load(std::memory_order_acquire) == first;
    }
    return uniform;
  }
  return IsUniform(WordAt(trunk_, gfn, AttributeTierOf(Gfn(frames - 1))));
}

void AttributeMap::ForEachRun(const MmuRead&, GfnRange range,
                              absl::FunctionRef<void(GfnRange, MemoryAttributes)> visit) const {
  GfnRange run;
  uint8_t value = 0;
  VisitAll(trunk_, range, [&](GfnRange piece, uint8_t of_piece) {
    if (!run.empty() && of_piece == value) {
      run.count += piece.count;
      return;
    }
    if (!run.empty()) visit(run, MemoryAttributes::FromWord(value));
    run = piece;
    value = of_piece;
  });
  if (!run.empty()) visit(run, MemoryAttributes::FromWord(value));
}

absl::Status AttributeMap::Prepare(const Turn&, GfnRange range, MemoryAttributes attributes) {
  assert(range.end() <= limit_);
  if (range.empty() || Writer(*this).Prepare(range, attributes.word())) return absl::OkStatus();
  return absl::ResourceExhaustedError("no memory for the attributes of the range");
}

void AttributeMap::Set(const Turn&, GfnRange range, MemoryAttributes attributes) {
  assert(range.end() <= limit_);
  if (!range.empty()) Writer(*this).Set(range, attributes.word());
}

void AttributeMap::Collapse(const Turn&, GfnRange range) {
  if (!range.empty()) Writer(*this).Collapse(range);
  if (retired_bytes_ > kRetiredBytes) FreeRetired();
}

}  // namespace twinroot::mmu
