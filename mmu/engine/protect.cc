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
  Flushed(const Root& root, FlushBatch& batch) : root_(root), batch_(batch) {}
  ~Flushed() {
    if (first_ < end_) batch_.AddFlush(root_, first_, end_ - first_);
  }
  void Add(HwGfn frame, uint64_t frames) {
    first_ = std::min(first_, frame);
    end_ = std::max(end_, frame + frames);
  }

 private:
  const Root& root_;
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
        return change_.TakeWrite(turn_, slot, level);
      case Taken::kDirty:
        return change_.TakeDirty(turn_, slot, level);
      case Taken::kAccessed:
        return change_.TakeAccessed(turn_, slot, level);
    }
    return false;
  }

 private:
  const Turn& turn_;
  EntryChange& change_;
  const Taken what_;
};

// Clears the bits [from, from + count) of `words`.
void ClearBits(absl::Span<uint64_t> words, uint64_t from, uint64_t count) {
  const uint64_t end = std::min<uint64_t>(from + count, words.size() * kWordBits);
  for (uint64_t i = from; i < end;) {
    const uint64_t at = i % kWordBits;
    const uint64_t n = std::min(kWordBits - at, end - i);
    words[i / kWordBits] &= ~((~uint64_t{0} >> (kWordBits - n)) << at);
    i += n;
  }
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
  Flushed flushed(root, batch);
  Taker take(turn, change, what);
  for (Cursor at(turn, pool, root, range); at.valid();) {
    if (at.level() == Level::k4K) {
      // A whole table in one loop.
      EntrySlot* const slots = at.slots() + at.index();
      const uint64_t count = at.entries_left();
      for (uint64_t i = 0; i < count; ++i) {
        if (!take(slots[i], Level::k4K)) continue;
        flushed.Add(at.frame() + i, 1);
        on_taken(root.GfnOf(at.frame() + i), 1);
      }
      at.Next(count);
      continue;
    }
    const EptEntry entry = at.entry();
    if (!at.returned() && StateOf(entry, at.level()) == SlotState::kLink && at.Descend(entry)) {
      continue;
    }
    if (!at.returned() && take(at.slot(), at.level())) {
      flushed.Add(at.frame(), FramesPerEntry(at.level()));
      on_taken(root.GfnOf(at.frame()), FramesPerEntry(at.level()));
    }
    at.Next();
  }
}

void TakeFromPages(const Turn& turn, TablePool& pool, EntryChange& change, const Root& root,
                   Gfn first, absl::Span<const uint64_t> words, absl::Span<uint64_t> missing,
                   Taken what, FlushBatch& batch) {
  Flushed flushed(root, batch);
  Taker take(turn, change, what);
  for (Cursor at(turn, pool, root, {first, words.size() * kWordBits}); at.valid();) {
    // The entry's first page, as a bit number; an entry may begin before the first page.
    const Gfn gfn = std::max(root.GfnOf(at.frame()), first);
    const uint64_t bit = gfn - first;
    if (at.level() == Level::k4K) {
      const uint64_t count = at.entries_left();
      for (uint64_t i = 0; i < count; i += kWordBits) {
        uint64_t& lost = missing[(bit + i) / kWordBits];
        for (uint64_t left = words[(bit + i) / kWordBits]; left != 0; left &= left - 1) {
          const int page = std::countr_zero(left);
          if (!take(at.slots()[at.index() + i + page], Level::k4K)) continue;
          lost &= ~(uint64_t{1} << page);
          flushed.Add(at.frame() + i + page, 1);
        }
      }
      at.Next(count);
      continue;
    }
    const EptEntry entry = at.entry();
    const uint64_t frames = root.GfnOf(at.frame()) + FramesPerEntry(at.level()) - gfn;
    const bool wanted = !at.returned() && AnyBit(words, bit, frames);
    if (wanted && StateOf(entry, at.level()) == SlotState::kLink && at.Descend(entry)) continue;
    if (wanted && take(at.slot(), at.level())) {
      ClearBits(missing, bit, frames);
      flushed.Add(at.frame(), FramesPerEntry(at.level()));
    }
    at.Next();
  }
}

}  // namespace twinroot::mmu
