// The memslots of one VM, ordered by frame.
//
// Readers never wait: a change makes a new array and swaps it in; the old one goes after an
// epoch. 1. Slots do not overlap. 2. No host frame belongs to two slots or to both backings of one.
#ifndef TWINROOT_MMU_VM_MEMSLOT_MAP_H_
#define TWINROOT_MMU_VM_MEMSLOT_MAP_H_

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
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
  using Slots = std::vector<Memslot>;  // ordered by frame

  MemslotMap() : current_(new Slots) {}
  ~MemslotMap() { delete current_.load(); }

  // Why `slot` cannot be added; OK if it can. `but_for`: ignore the slot that begins there.
  absl::Status Check(const Turn&, const Memslot& slot, std::optional<Gfn> but_for = {}) const;
  // After Check: the slots without the one that begins at `gone`, and with `added`. For Swap.
  std::unique_ptr<const Slots> After(const Turn&, std::optional<Gfn> gone,
                                     const std::optional<Memslot>& added) const;
  // Cannot fail.
  void Swap(const Turn&, std::unique_ptr<const Slots> slots) noexcept {
    retired_.Add(current_.exchange(slots.release(), std::memory_order_acq_rel));
  }

  // Valid as long as the guard or the turn is held.
  const Memslot* Find(const MmuRead&, Gfn gfn) const {
    const Memslot* const slot = FirstBehind(gfn);
    return slot != nullptr && slot->range.first <= gfn ? slot : nullptr;
  }

  // Some slot has a frame of the range.
  bool Touches(const MmuRead&, GfnRange range) const {
    const Memslot* const slot = FirstBehind(range.first);
    return slot != nullptr && slot->range.Overlaps(range);
  }

  // The parts of a range, each inside one slot. False: a frame of it lies in none, and what is
  // behind it was not visited.
  template <typename Visit>
  bool ForEachPart(const MmuRead& read, GfnRange range, const Visit& visit) const {
    for (Gfn at = range.first; at < range.end();) {
      const Memslot* slot = Find(read, at);
      if (slot == nullptr) return false;
      const Gfn end = std::min(range.end(), slot->range.end());
      visit(GfnRange{at, end - at});
      at = end;
    }
    return true;
  }

  const Slots& all(const MmuRead&) const { return *Now(); }

 private:
  static constexpr size_t kFew = 8;
  const Slots* Now() const { return current_.load(std::memory_order_acquire); }
  // The first slot that ends behind the frame, or null: the only one that can hold it. Few are
  // looked through.
  [[gnu::always_inline]] const Memslot* FirstBehind(Gfn gfn) const {
    const Slots& slots = *Now();
    const auto ends_before = [gfn](const Memslot& slot) { return slot.range.end() <= gfn; };
    auto it = slots.begin();
    if (slots.size() <= kFew) {
      while (it != slots.end() && ends_before(*it)) ++it;
    } else {
      it = std::partition_point(it, slots.end(), ends_before);
    }
    return it != slots.end() ? &*it : nullptr;
  }

  std::atomic<const Slots*> current_;
  RetireList retired_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_MEMSLOT_MAP_H_
