#include "mmu/vm/attribute_map.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <new>
#include <optional>

namespace twinroot::mmu {
namespace {

// A kind, marked by bit 0, or the address of the split below.
using Word = std::atomic<uintptr_t>;

// The split of a word of 1 GiB and more.
struct Words {
  Word child[kEntriesPerTable];
};

// The split of a word of 2 MiB: one bit a frame, 1 = shared.
struct Bitmap {
  static constexpr uint64_t kBits = 64;
  std::atomic<uint64_t> bits[kEntriesPerTable / kBits];
};
static_assert(sizeof(Bitmap) == 64);

// Above the largest entry of a 5-level walk: covers more than any Gfn.
constexpr int kRootLevel = static_cast<int>(Level::k256T) + 1;
constexpr int kBitmapLevel = static_cast<int>(Level::k2M);

constexpr uint64_t FramesOf(int level) { return uint64_t{1} << (kIndexBits * (level - 1)); }
constexpr GfnRange kEverything{Gfn(0), FramesOf(kRootLevel)};

constexpr uintptr_t Uniform(MemoryKind kind) { return (static_cast<uintptr_t>(kind) << 1) | 1; }
constexpr bool IsUniform(uintptr_t word) { return word & 1; }
constexpr MemoryKind KindOf(uintptr_t word) { return static_cast<MemoryKind>(word >> 1); }
Words* WordsOf(uintptr_t word) { return reinterpret_cast<Words*>(word); }
Bitmap* BitmapOf(uintptr_t word) { return reinterpret_cast<Bitmap*>(word); }
constexpr size_t SizeOfSplit(int level) {
  return level == kBitmapLevel ? sizeof(Bitmap) : sizeof(Words);
}

GfnRange ChildRange(GfnRange covered, int level, size_t index) {
  return {covered.first + index * FramesOf(level - 1), FramesOf(level - 1)};
}
size_t ChildIndex(GfnRange covered, int level, Gfn gfn) {
  return (gfn - covered.first) / FramesOf(level - 1);
}

// Null if there is no memory.
uintptr_t NewSplit(int level, MemoryKind kind) {
  if (level == kBitmapLevel) {
    auto* bitmap = new (std::nothrow) Bitmap;
    if (bitmap == nullptr) return 0;
    for (auto& bits : bitmap->bits) bits = kind == MemoryKind::kShared ? ~uint64_t{0} : 0;
    return reinterpret_cast<uintptr_t>(bitmap);
  }
  auto* words = new (std::nothrow) Words;
  if (words == nullptr) return 0;
  for (Word& child : words->child) child.store(Uniform(kind), std::memory_order_relaxed);
  return reinterpret_cast<uintptr_t>(words);
}

// The kind that everything below a split has, if it is one.
std::optional<MemoryKind> CommonKind(uintptr_t split, int level) {
  if (level == kBitmapLevel) {
    const Bitmap& bitmap = *BitmapOf(split);
    const uint64_t first = bitmap.bits[0].load(std::memory_order_relaxed);
    if (first != 0 && first != ~uint64_t{0}) return std::nullopt;
    for (const auto& bits : bitmap.bits) {
      if (bits.load(std::memory_order_relaxed) != first) return std::nullopt;
    }
    return first == 0 ? MemoryKind::kPrivate : MemoryKind::kShared;
  }
  const Words& words = *WordsOf(split);
  const uintptr_t first = words.child[0].load(std::memory_order_relaxed);
  if (!IsUniform(first)) return std::nullopt;
  for (const Word& child : words.child) {
    if (child.load(std::memory_order_relaxed) != first) return std::nullopt;
  }
  return KindOf(first);
}

void SetBits(Bitmap& bitmap, uint64_t first, uint64_t count, MemoryKind kind) {
  for (uint64_t i = first; i < first + count;) {
    const uint64_t at = i % Bitmap::kBits;
    const uint64_t n = std::min(Bitmap::kBits - at, first + count - i);
    const uint64_t mask = (n == Bitmap::kBits ? ~uint64_t{0} : (uint64_t{1} << n) - 1) << at;
    auto& bits = bitmap.bits[i / Bitmap::kBits];
    const uint64_t old = bits.load(std::memory_order_relaxed);
    bits.store(kind == MemoryKind::kShared ? old | mask : old & ~mask, std::memory_order_relaxed);
    i += n;
  }
}

class Writer {
 public:
  explicit Writer(std::atomic<size_t>& bytes) : bytes_(bytes) {}

  // False: no memory.
  bool Split(Word& word, int level, GfnRange covered, GfnRange range) {
    if (range.Contains(covered) || !range.Overlaps(covered)) return true;
    uintptr_t now = word.load(std::memory_order_relaxed);
    if (IsUniform(now)) {
      now = NewSplit(level, KindOf(now));
      if (now == 0) return false;
      bytes_ += SizeOfSplit(level);
      word.store(now, std::memory_order_release);
    }
    if (level == kBitmapLevel) return true;
    // Only the children at the two ends can be covered in part.
    const GfnRange inside = Intersection(covered, range);
    for (const Gfn end : {inside.first, inside.end() - 1}) {
      const size_t i = ChildIndex(covered, level, end);
      if (!Split(WordsOf(now)->child[i], level - 1, ChildRange(covered, level, i), range)) {
        return false;
      }
    }
    return true;
  }

  // Sets the range, if there is a kind, and collapses what became uniform on the way.
  void Set(Word& word, int level, GfnRange covered, GfnRange range,
           std::optional<MemoryKind> kind) {
    const uintptr_t now = word.load(std::memory_order_relaxed);
    if (kind && range.Contains(covered)) {
      word.store(Uniform(*kind), std::memory_order_release);
      Free(now, level);
      return;
    }
    if (IsUniform(now)) {
      assert(!kind || KindOf(now) == *kind);  // else it was not prepared
      return;
    }
    const GfnRange inside = Intersection(covered, range);
    if (level == kBitmapLevel) {
      if (kind) SetBits(*BitmapOf(now), inside.first - covered.first, inside.count, *kind);
    } else {
      const size_t last = ChildIndex(covered, level, inside.end() - 1);
      for (size_t i = ChildIndex(covered, level, inside.first); i <= last; ++i) {
        Set(WordsOf(now)->child[i], level - 1, ChildRange(covered, level, i), range, kind);
      }
    }
    if (const std::optional<MemoryKind> common = CommonKind(now, level)) {
      word.store(Uniform(*common), std::memory_order_release);
      Free(now, level);
    }
  }

  void Free(uintptr_t word, int level) {
    if (IsUniform(word)) return;
    bytes_ -= SizeOfSplit(level);
    if (level == kBitmapLevel) {
      (void)BitmapOf(word);
      return;
    }
    for (Word& child : WordsOf(word)->child) {
      Free(child.load(std::memory_order_relaxed), level - 1);
    }
  }

 private:
  std::atomic<size_t>& bytes_;
};

// Joins neighbours of one kind.
class RunMerger {
 public:
  explicit RunMerger(const std::function<void(GfnRange, MemoryAttributes)>& visit)
      : visit_(visit) {}

  void Add(GfnRange range, MemoryKind kind) {
    if (!run_.empty() && kind == kind_ && run_.end() == range.first) {
      run_.count += range.count;
      return;
    }
    Finish();
    run_ = range;
    kind_ = kind;
  }
  void Finish() {
    if (!run_.empty()) visit_(run_, {kind_, {}});
    run_.count = 0;
  }

 private:
  const std::function<void(GfnRange, MemoryAttributes)>& visit_;
  GfnRange run_;
  MemoryKind kind_ = MemoryKind::kPrivate;
};

void Visit(uintptr_t word, int level, GfnRange covered, GfnRange range, RunMerger& runs) {
  const GfnRange inside = Intersection(covered, range);
  if (IsUniform(word)) {
    runs.Add(inside, KindOf(word));
  } else if (level == kBitmapLevel) {
    const Bitmap& bitmap = *BitmapOf(word);
    for (Gfn at = inside.first; at < inside.end();) {
      const uint64_t i = at - covered.first;
      const uint64_t bits =
          bitmap.bits[i / Bitmap::kBits].load(std::memory_order_acquire) >> (i % Bitmap::kBits);
      const bool shared = bits & 1;
      const uint64_t same = shared ? std::countr_one(bits) : std::countr_zero(bits);
      const uint64_t n = std::min({same, Bitmap::kBits - i % Bitmap::kBits, inside.end() - at});
      runs.Add({at, n}, shared ? MemoryKind::kShared : MemoryKind::kPrivate);
      at = at + n;
    }
  } else {
    const size_t last = ChildIndex(covered, level, inside.end() - 1);
    for (size_t i = ChildIndex(covered, level, inside.first); i <= last; ++i) {
      Visit(WordsOf(word)->child[i].load(std::memory_order_acquire), level - 1,
            ChildRange(covered, level, i), range, runs);
    }
  }
}

}  // namespace

AttributeMap::AttributeMap(Gfn) : root_(Uniform(MemoryKind::kShared)) {}

AttributeMap::~AttributeMap() { Writer(bytes_).Free(root_.load(), kRootLevel); }

MemoryAttributes AttributeMap::Get(const MmuRead&, Gfn gfn) const {
  uintptr_t word = root_.load(std::memory_order_acquire);
  for (int level = kRootLevel; !IsUniform(word); --level) {
    const uint64_t i = gfn.value / FramesOf(level - 1) % kEntriesPerTable;
    if (level == kBitmapLevel) {
      const uint64_t bits = BitmapOf(word)->bits[i / Bitmap::kBits].load(std::memory_order_acquire);
      return {bits >> (i % Bitmap::kBits) & 1 ? MemoryKind::kShared : MemoryKind::kPrivate, {}};
    }
    word = WordsOf(word)->child[i].load(std::memory_order_acquire);
  }
  return {KindOf(word), {}};
}

bool AttributeMap::UniformAt(const MmuRead&, Gfn gfn, Level level) const {
  uintptr_t word = root_.load(std::memory_order_acquire);
  for (int at = kRootLevel; !IsUniform(word); --at) {
    if (at <= static_cast<int>(level)) return level == Level::k4K;
    if (at == kBitmapLevel) return true;  // one frame is always uniform
    const uint64_t i = gfn.value / FramesOf(at - 1) % kEntriesPerTable;
    word = WordsOf(word)->child[i].load(std::memory_order_acquire);
  }
  return true;
}

void AttributeMap::ForEachRun(const MmuRead&, GfnRange range,
                              const std::function<void(GfnRange, MemoryAttributes)>& visit) const {
  if (range.empty()) return;
  RunMerger runs(visit);
  Visit(root_.load(std::memory_order_acquire), kRootLevel, kEverything, range, runs);
  runs.Finish();
}

absl::Status AttributeMap::Prepare(const Turn&, GfnRange range, MemoryAttributes) {
  if (Writer(bytes_).Split(root_, kRootLevel, kEverything, range)) return absl::OkStatus();
  return absl::ResourceExhaustedError("no memory for the attributes of the range");
}

void AttributeMap::Set(const Turn&, GfnRange range, MemoryAttributes attributes) {
  const MemoryKind kind = attributes.kind;
  if (!range.empty()) Writer(bytes_).Set(root_, kRootLevel, kEverything, range, kind);
}

void AttributeMap::Collapse(const Turn&, GfnRange range) {
  if (!range.empty()) Writer(bytes_).Set(root_, kRootLevel, kEverything, range, std::nullopt);
}

}  // namespace twinroot::mmu
