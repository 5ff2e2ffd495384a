// The memslots of one VM, ordered by frame.
//
// Readers never wait: a change makes a new array and swaps it in; the old one goes after an
// epoch. 1. Slots do not overlap. 2. No host frame belongs to two slots or to both backings of one.
#ifndef TWINROOT_MMU_VM_MEMSLOT_MAP_H_
#define TWINROOT_MMU_VM_MEMSLOT_MAP_H_

#include <algorithm>
#include <atomic>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "mmu/tables/epoch.h"
#include "mmu/tables/retire_list.h"
#include "mmu/vm/guest_address_space.h"

namespace twinroot::mmu {

// The frame behind `gfn`, which is inside the slot; nullopt: no backing of that kind.
inline std::optional<Pfn> BackingOf(const Memslot& slot, Gfn gfn, MemoryKind kind) {
  const std::optional<Pfn>& first =
      kind == MemoryKind::kPrivate ? slot.private_pfn : slot.shared_pfn;
  if (!first) return std::nullopt;
  return *first + (gfn - slot.range.first);
}

class MemslotMap {
 public:
  MemslotMap() : current_(new Slots) {}
  ~MemslotMap() { delete current_.load(); }

  // Why `slot` cannot be added; OK if it can. `but_for`: ignore the slot that begins there.
  absl::Status Check(const Turn&, const Memslot& slot, std::optional<Gfn> but_for = {}) const;
  // After Check.
  void Add(const Turn&, const Memslot& slot);
  // The slot that begins at `first`, if there is one.
  void Remove(const Turn&, Gfn first);
  // Both in one step, either or none: the slot that begins at `gone` goes, `added` comes.
  void Replace(const Turn&, std::optional<Gfn> gone, const std::optional<Memslot>& added);

  // Valid as long as the guard or the turn is held.
  [[gnu::always_inline]] const Memslot* Find(const MmuRead&, Gfn gfn) const {
    const Slots& slots = *Now();
    // The first slot that ends behind the frame is the only candidate. Few are looked through.
    auto it = slots.begin();
    const auto ends_before = [gfn](const Memslot& slot) { return slot.range.end() <= gfn; };
    if (slots.size() <= kFew) {
      while (it != slots.end() && ends_before(*it)) ++it;
    } else {
      it = std::partition_point(it, slots.end(), ends_before);
    }
    return it != slots.end() && it->range.first <= gfn ? &*it : nullptr;
  }

  // Some slot has a frame of the range.
  bool Touches(const MmuRead&, GfnRange range) const;

  // The parts of a range, each inside one slot; nullopt if a frame of it lies in none.
  std::optional<std::vector<GfnRange>> Parts(const MmuRead&, GfnRange range) const;

  const std::vector<Memslot>& all(const MmuRead&) const { return *Now(); }

 private:
  using Slots = std::vector<Memslot>;  // ordered by frame
  static constexpr size_t kFew = 8;
  const Slots* Now() const { return current_.load(std::memory_order_acquire); }
  void Swap(const Turn&, Slots slots);

  std::atomic<const Slots*> current_;
  RetireList retired_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_MEMSLOT_MAP_H_
