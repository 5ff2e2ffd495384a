#include "mmu/vm/memslot_change.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "mmu/vm/invalidation.h"
#include "mmu/vm/mmio_cache.h"

namespace twinroot::mmu {
namespace {

std::string NameOf(Gfn first) {
  return absl::StrCat("memslot at 0x", absl::Hex(first.value << kPageShift));
}

// What can be said of a slot without knowing the others.
absl::Status CheckShape(const AddressSpaceState& vm, const Memslot& slot) {
  const std::string name = NameOf(slot.range.first);
  const uint64_t limit = vm.gfn_limit.value;
  if (slot.range.empty()) return absl::InvalidArgumentError(name + " is empty");
  if (slot.range.first.value >= limit || slot.range.count > limit - slot.range.first.value) {
    return absl::InvalidArgumentError(absl::StrCat(name, " ends beyond the last guest address 0x",
                                                   absl::Hex((limit << kPageShift) - 1)));
  }
  if (!slot.private_pfn && !slot.shared_pfn) {
    return absl::InvalidArgumentError(name + " has no backing");
  }
  const uint64_t frames = uint64_t{1} << (vm.config.host_maxphyaddr - kPageShift);
  for (const std::optional<Pfn>& pfn : {slot.private_pfn, slot.shared_pfn}) {
    if (!pfn) continue;
    if (pfn->value >= frames || slot.range.count > frames - pfn->value) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, " has a backing beyond the host's physical address width of ",
                       vm.config.host_maxphyaddr));
    }
    const Pfn tables = PfnOf(vm.env.pool->base());
    if (*pfn < tables + vm.env.pool->pages() && tables < *pfn + slot.range.count) {
      return absl::InvalidArgumentError(name + " has page-table pages as backing");
    }
  }
  return absl::OkStatus();
}

// One change: at most one slot goes, at most one comes.
class SlotChange {
 public:
  SlotChange(const Turn& turn, AddressSpaceState& vm) : turn_(turn), vm_(vm) {}

  // The slot that begins at `first` goes. kNotFound.
  absl::Status Take(Gfn first) {
    const Memslot* slot = vm_.slots.Find(turn_, first);
    if (slot == nullptr || slot->range.first != first) {
      return absl::NotFoundError(absl::StrCat("no ", NameOf(first)));
    }
    gone_ = *slot;
    return absl::OkStatus();
  }
  absl::Status Put(const Memslot& slot) {
    const std::optional<Gfn> but_for =
        gone_ ? std::optional<Gfn>(gone_->range.first) : std::nullopt;
    if (absl::Status status = vm_.slots.Check(turn_, slot, but_for); !status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat(NameOf(slot.range.first), " ", status.message()));
    }
    added_ = slot;
    return absl::OkStatus();
  }

  // `move_backing` runs first inside the invalidation, and may refuse.
  absl::Status Run(const std::function<absl::Status()>& move_backing = nullptr) {
    PlanAttributes();
    if (absl::Status status = Prepare(); !status.ok()) return status;
    const absl::Status status = Invalidate(move_backing);
    CollapseAttributes();
    if (old_log_ != nullptr) SynchronizeEpoch();
    return status;
  }

 private:
  struct AttributeSet {
    GfnRange range;
    MemoryAttributes attributes;
  };

  // runs_: disjoint, the ranges of both slots, with what they are to be.
  void PlanAttributes() {
    if (added_ && !gone_) runs_.push_back({added_->range, kNewSlot});
    if (added_ && gone_) {
      vm_.attributes.ForEachRun(turn_, gone_->range, [this](GfnRange run, MemoryAttributes of) {
        runs_.push_back({{added_->range.first + (run.first - gone_->range.first), run.count}, of});
      });
    }
    if (!gone_) return;
    vm_.attributes.ForEachRun(turn_, gone_->range, [this](GfnRange run, MemoryAttributes of) {
      frames_[static_cast<int>(of.kind)] += run.count;
    });
    for (const GfnRange& left : LeftBehind()) runs_.push_back({left, kOutsideSlots});
  }

  // The parts of the old range that the new one does not cover.
  std::vector<GfnRange> LeftBehind() const {
    const GfnRange old = gone_->range;
    if (!added_ || !added_->range.Overlaps(old)) return {old};
    const GfnRange now = added_->range;
    std::vector<GfnRange> parts;
    if (old.first < now.first) parts.push_back({old.first, now.first - old.first});
    if (now.end() < old.end()) parts.push_back({now.end(), old.end() - now.end()});
    return parts;
  }

  // What needs memory; nobody sees any of it yet.
  absl::Status Prepare() {
    new_slots_ = vm_.slots.After(
        turn_, gone_ ? std::optional<Gfn>(gone_->range.first) : std::nullopt, added_);
    if (absl::Status status = PrepareLog(); !status.ok()) return status;
    for (const AttributeSet& run : runs_) {
      absl::Status status = vm_.attributes.Prepare(turn_, run.range, run.attributes);
      if (status.ok()) continue;
      CollapseAttributes();
      return status;
    }
    return absl::OkStatus();
  }

  // If the dirty log is on, it logs the new slots from the commit on.
  absl::Status PrepareLog() {
    const DirtyLog* now = vm_.log.load();
    if (now == nullptr) return absl::OkStatus();
    std::vector<GfnRange> slots;
    for (const Memslot& slot : *new_slots_) slots.push_back(slot.range);
    absl::StatusOr<std::unique_ptr<const DirtyLog>> next = now->ForSlots(slots);
    if (!next.ok()) return next.status();
    new_log_ = *std::move(next);
    return absl::OkStatus();
  }

  absl::Status Invalidate(const std::function<absl::Status()>& move_backing) {
    // A wrapping generation would bring old marks back to life: everything goes, marks too.
    const bool everything = MmioGenerationWraps(vm_);
    Invalidation invalidation(turn_, vm_, everything ? std::vector{vm_.everything} : Ranges());
    if (move_backing) {
      if (absl::Status status = move_backing(); !status.ok()) return status;
    }
    if (gone_ || everything) {
      if (absl::Status status = invalidation.Zap(kAllKinds); !status.ok()) return status;
    }
    if (gone_ && added_) {
      for (const MemoryKind kind : kAllKinds) {
        ExternalTables* const external = vm_.roots.Of(kind).external;
        if (external != nullptr) external->MoveSlot(gone_->range, added_->range.first);
      }
    }
    invalidation.Commit([this] { Commit(); });
    return absl::OkStatus();
  }

  void Commit() {
    for (const AttributeSet& run : runs_) vm_.attributes.Set(turn_, run.range, run.attributes);
    vm_.slots.Swap(turn_, std::move(new_slots_));
    if (added_ && !gone_) {
      vm_.frames[static_cast<int>(MemoryKind::kPrivate)] += added_->range.count;
    } else if (gone_ && !added_) {
      for (const MemoryKind kind : kAllKinds) {
        vm_.frames[static_cast<int>(kind)] -= frames_[static_cast<int>(kind)];
      }
    }
    BumpMmioGeneration(vm_);
    if (new_log_ == nullptr) return;
    // Whoever copies memory by the log has not seen these bytes in their place: what was there
    // before, if anything, was other memory.
    if (added_) new_log_->MarkRange(added_->range);
    old_log_.reset(vm_.log.exchange(new_log_.release()));
  }

  void CollapseAttributes() {
    for (const AttributeSet& run : runs_) vm_.attributes.Collapse(turn_, run.range);
  }

  std::vector<GfnRange> Ranges() const {
    if (!gone_) return {added_->range};
    if (!added_) return {gone_->range};
    GfnRange a = gone_->range;
    GfnRange b = added_->range;
    if (b.first < a.first) std::swap(a, b);
    if (b.first >= a.end()) return {a, b};
    return {{a.first, std::max(a.end(), b.end()) - a.first}};
  }

  const Turn& turn_;
  AddressSpaceState& vm_;
  std::optional<Memslot> gone_;
  std::optional<Memslot> added_;
  std::vector<AttributeSet> runs_;
  uint64_t frames_[2] = {};  // [MemoryKind] of what goes
  std::unique_ptr<const MemslotMap::Slots> new_slots_;
  std::unique_ptr<const DirtyLog> new_log_, old_log_;
};

}  // namespace

absl::Status AddMemslot(AddressSpaceState& vm, const Memslot& slot) {
  if (absl::Status status = vm.bugs.Check(); !status.ok()) return status;
  if (absl::Status status = CheckShape(vm, slot); !status.ok()) return status;
  const Turn turn(vm.turn_mutex);
  SlotChange change(turn, vm);
  if (absl::Status status = change.Put(slot); !status.ok()) return status;
  return change.Run();
}

absl::Status RemoveMemslot(AddressSpaceState& vm, Gfn first) {
  GfnRange range;
  {
    const Turn turn(vm.turn_mutex);
    if (absl::Status status = vm.bugs.Check(); !status.ok()) return status;
    SlotChange change(turn, vm);
    if (absl::Status status = change.Take(first); !status.ok()) return status;
    range = vm.slots.Find(turn, first)->range;
    if (absl::Status status = change.Run(); !status.ok()) return status;
  }
  vm.resolves.WaitFor(range);
  return absl::OkStatus();
}

absl::Status MoveMemslot(AddressSpaceState& vm, Gfn first, Gfn new_first) {
  const Turn turn(vm.turn_mutex);
  if (absl::Status status = vm.bugs.Check(); !status.ok()) return status;
  SlotChange change(turn, vm);
  if (absl::Status status = change.Take(first); !status.ok()) return status;
  Memslot moved = *vm.slots.Find(turn, first);
  const GfnRange old = moved.range;
  if (new_first == first) return absl::OkStatus();
  moved.range.first = new_first;
  if (absl::Status status = CheckShape(vm, moved); !status.ok()) return status;
  if (absl::Status status = change.Put(moved); !status.ok()) return status;
  return change.Run([&] { return vm.env.pages->Move(old, new_first); });
}

}  // namespace twinroot::mmu
