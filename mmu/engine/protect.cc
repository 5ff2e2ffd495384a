#include "mmu/engine/protect.h"

#include <algorithm>
#include <bit>
#include <type_traits>

#include "mmu/tables/cursor.h"

namespace twinroot::mmu {
namespace {

constexpr uint64_t kWordBits = 64;

// What is to be flushed of one root: from the first to the last leaf.
class Flushed {
 public:
  Flushed(const Root& root, Taken what, FlushBatch& batch)
      : root_(root), what_(what), batch_(batch) {}
  ~Flushed() {
    if (first_ < end_) batch_.AddFlush(root_, first_, end_ - first_);
  }
  void Add(HwGfn frame, uint64_t frames) {
    // See protect.h: nothing relies on it.
    if (what_ == Taken::kAccessed) return;
    first_ = std::min(first_, frame);
    end_ = std::max(end_, frame + frames);
  }

 private:
  const Root& root_;
  const Taken what_;
  FlushBatch& batch_;
  HwGfn first_{~uint64_t{0}};
  HwGfn end_{0};
};

// One `what` at a time, so that the loops over whole tables ask nothing for each leaf.
template <Taken kWhat>
bool Take(const Turn& turn, EntryChange& change, EntrySlot& slot, Level level) {
  if constexpr (kWhat == Taken::kDirty) return change.TakeDirty(turn, slot, level);
  if constexpr (kWhat == Taken::kAccessed) return change.TakeAccessed(turn, slot, level);
  if constexpr (kWhat == Taken::kRights) return change.SaveRights(turn, slot, level);
  return change.TakeWrite(turn, slot, level);
}

// Calls `f` with what is to be taken, as a constant.
template <typename F>
void With(Taken what, const F& f) {
  switch (what) {
    case Taken::kWrite:
      return f(std::integral_constant<Taken, Taken::kWrite>());
    case Taken::kWriteOfLarge:
      return f(std::integral_constant<Taken, Taken::kWriteOfLarge>());
    case Taken::kDirty:
      return f(std::integral_constant<Taken, Taken::kDirty>());
    case Taken::kAccessed:
      return f(std::integral_constant<Taken, Taken::kAccessed>());
    case Taken::kRights:
      return f(std::integral_constant<Taken, Taken::kRights>());
  }
}

// Into the table below the entry; false: there is none. Asked after nothing could be taken from
// the entry: until then a fault may have split the leaf that was there.
bool WentDown(Cursor& at) {
  const EptEntry entry = at.entry();
  return StateOf(entry, at.level()) == SlotState::kLink && at.Descend(entry);
}

bool AnyBit(absl::Span<const uint64_t> words, uint64_t from, uint64_t count) {
  const uint64_t end = std::min<uint64_t>(from + count, words.size() * kWordBits);
  for (uint64_t i = from; i < end;) {
    const uint64_t at = i % kWordBits;
    const uint64_t n = std::min(kWordBits - at, end - i);
    if (words[i / kWordBits] & ((~uint64_t{0} >> (kWordBits - n)) << at)) return true;
    i += n;
  }
  return false;
}

template <Taken kWhat>
void FromRange(const Turn& turn, TablePool& pool, EntryChange& change, const Root& root,
               GfnRange range, FlushBatch& batch, OnTaken on_taken) {
  Flushed flushed(root, kWhat, batch);
  for (Cursor at(turn, pool, root, range); at.valid();) {
    if (at.level() == Level::k4K) {
      // A whole table in one loop.
      EntrySlot* const slots = at.slots() + at.index();
      const uint64_t count = at.entries_left();
      for (uint64_t i = 0; i < count && kWhat != Taken::kWriteOfLarge; ++i) {
        if (!Take<kWhat>(turn, change, slots[i], Level::k4K)) continue;
        flushed.Add(at.frame() + i, 1);
        on_taken(root.GfnOf(at.frame() + i), 1);
      }
      at.Next(count);
      continue;
    }
    if (!at.returned()) {
      if (Take<kWhat>(turn, change, at.slot(), at.level())) {
        flushed.Add(at.frame(), FramesPerEntry(at.level()));
        on_taken(root.GfnOf(at.frame()), FramesPerEntry(at.level()));
      } else if (WentDown(at)) {
        continue;
      }
    }
    at.Next();
  }
}

template <Taken kWhat>
void FromPages(const Turn& turn, TablePool& pool, EntryChange& change, const Root& root, Gfn first,
               absl::Span<const uint64_t> words, FlushBatch& batch) {
  Flushed flushed(root, kWhat, batch);
  const HwGfn begin = root.FrameOf(first);
  for (Cursor at(turn, pool, root, {first, words.size() * kWordBits}); at.valid();) {
    // The entry's first page, as a bit number. An entry may begin before the first page, and before
    // the alias: frames are compared as the walk numbers them.
    const HwGfn from = std::max(at.frame(), begin);
    const uint64_t bit = from - begin;
    if (at.level() == Level::k4K) {
      EntrySlot* const slots = at.slots() + at.index();
      const uint64_t count = at.entries_left();
      for (uint64_t i = 0; i < count; i += kWordBits) {
        for (uint64_t left = words[(bit + i) / kWordBits]; left != 0; left &= left - 1) {
          const int page = std::countr_zero(left);
          if (!Take<kWhat>(turn, change, slots[i + page], Level::k4K)) continue;
          flushed.Add(at.frame() + i + page, 1);
        }
      }
      at.Next(count);
      continue;
    }
    const uint64_t frames = at.frame() + FramesPerEntry(at.level()) - from;
    if (!at.returned() && AnyBit(words, bit, frames)) {
      if (Take<kWhat>(turn, change, at.slot(), at.level())) {
        flushed.Add(at.frame(), FramesPerEntry(at.level()));
      } else if (WentDown(at)) {
        continue;
      }
    }
    at.Next();
  }
}

}  // namespace

void TakeFromRange(const Turn& turn, TablePool& pool, EntryChange& change, const Root& root,
                   GfnRange range, Taken what, FlushBatch& batch, OnTaken on_taken) {
  With(what, [&](auto constant) {
    constexpr Taken kWhat = constant;
    FromRange<kWhat>(turn, pool, change, root, range, batch, on_taken);
  });
}

void TakeFromPages(const Turn& turn, TablePool& pool, EntryChange& change, const Root& root,
                   Gfn first, absl::Span<const uint64_t> words, Taken what, FlushBatch& batch) {
  With(what, [&](auto constant) {
    constexpr Taken kWhat = constant;
    FromPages<kWhat>(turn, pool, change, root, first, words, batch);
  });
}

}  // namespace twinroot::mmu
