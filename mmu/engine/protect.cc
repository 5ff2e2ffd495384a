#include "mmu/engine/protect.h"

#include <algorithm>
#include <bit>

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

class Taker {
 public:
  Taker(const Turn& turn, EntryChange& change, Taken what)
      : turn_(turn), change_(change), what_(what) {}
  bool operator()(EntrySlot& slot, Level level) {
    switch (what_) {
      case Taken::kWrite:
      case Taken::kWriteOfLarge:
        return change_.TakeWrite(turn_, slot, level);
      case Taken::kDirty:
        return change_.TakeDirty(turn_, slot, level);
      case Taken::kAccessed:
        return change_.TakeAccessed(turn_, slot, level);
      case Taken::kRights:
        return change_.SaveRights(turn_, slot, level);
    }
    return false;
  }

 private:
  const Turn& turn_;
  EntryChange& change_;
  const Taken what_;
};

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

}  // namespace

void TakeFromRange(const Turn& turn, TablePool& pool, EntryChange& change, const Root& root,
                   GfnRange range, Taken what, FlushBatch& batch, OnTaken on_taken) {
  Flushed flushed(root, what, batch);
  Taker take(turn, change, what);
  for (Cursor at(turn, pool, root, range); at.valid();) {
    if (at.level() == Level::k4K) {
      // A whole table in one loop.
      EntrySlot* const slots = at.slots() + at.index();
      const uint64_t count = at.entries_left();
      for (uint64_t i = 0; i < count && what != Taken::kWriteOfLarge; ++i) {
        if (!take(slots[i], Level::k4K)) continue;
        flushed.Add(at.frame() + i, 1);
        on_taken(root.GfnOf(at.frame() + i), 1);
      }
      at.Next(count);
      continue;
    }
    if (!at.returned()) {
      if (take(at.slot(), at.level())) {
        flushed.Add(at.frame(), FramesPerEntry(at.level()));
        on_taken(root.GfnOf(at.frame()), FramesPerEntry(at.level()));
      } else if (WentDown(at)) {
        continue;
      }
    }
    at.Next();
  }
}

void TakeFromPages(const Turn& turn, TablePool& pool, EntryChange& change, const Root& root,
                   Gfn first, absl::Span<const uint64_t> words, Taken what, FlushBatch& batch) {
  Flushed flushed(root, what, batch);
  Taker take(turn, change, what);
  const HwGfn begin = root.FrameOf(first);
  for (Cursor at(turn, pool, root, {first, words.size() * kWordBits}); at.valid();) {
    // The entry's first page, as a bit number. An entry may begin before the first page, and before
    // the alias: frames are compared as the walk numbers them.
    const HwGfn from = std::max(at.frame(), begin);
    const uint64_t bit = from - begin;
    if (at.level() == Level::k4K) {
      const uint64_t count = at.entries_left();
      for (uint64_t i = 0; i < count; i += kWordBits) {
        for (uint64_t left = words[(bit + i) / kWordBits]; left != 0; left &= left - 1) {
          const int page = std::countr_zero(left);
          if (!take(at.slots()[at.index() + i + page], Level::k4K)) continue;
          flushed.Add(at.frame() + i + page, 1);
        }
      }
      at.Next(count);
      continue;
    }
    const uint64_t frames = at.frame() + FramesPerEntry(at.level()) - from;
    if (!at.returned() && AnyBit(words, bit, frames)) {
      if (take(at.slot(), at.level())) {
        flushed.Add(at.frame(), FramesPerEntry(at.level()));
      } else if (WentDown(at)) {
        continue;
      }
    }
    at.Next();
  }
}

}  // namespace twinroot::mmu
