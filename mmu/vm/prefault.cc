#include "mmu/vm/prefault.h"

#include <algorithm>
#include <string>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "mmu/engine/max_level.h"
#include "mmu/tables/cursor.h"
#include "mmu/vm/attribute_change.h"
#include "mmu/vm/fault_handler.h"

namespace twinroot::mmu {
namespace {

// So often a page may change under us before we give up.
constexpr int kAttempts = 64;
// Frames between two calls of `progress`, unless a larger leaf comes in one.
constexpr uint64_t kChunk = FramesPerEntry(Level::k2M);

std::string NameOf(Gfn gfn) {
  return absl::StrCat("address 0x", absl::Hex(gfn.value << kPageShift));
}

// What a page's attributes make of it.
struct Target {
  MemoryKind kind;
  Access allowed;
};

class Populator {
 public:
  Populator(AddressSpaceState& vm, std::optional<MemoryKind> kind) : vm_(vm), kind_(kind) {}

  // The first frame behind what stands at `gfn` now.
  absl::StatusOr<Gfn> PopulateAt(Gfn gfn) {
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      const absl::StatusOr<Target> target = TargetAt(gfn);
      if (!target.ok()) return target.status();
      // Nothing may ever be mapped there.
      if (target->allowed.empty()) return gfn + 1;
      if (vm_.shadow != nullptr) {
        // By which linear address it will be asked for, nobody knows yet: the page itself comes.
        if (absl::Status status = vm_.shadow->Populate(gfn, target->kind); !status.ok()) {
          return status;
        }
        return gfn + 1;
      }
      const FaultOutcome outcome = PopulatePage(vm_, vm_.config.layout.GpaOf(gfn, target->kind));
      if (const auto* fixed = std::get_if<Fixed>(&outcome)) {
        return LeafRange(gfn, fixed->level).end();
      }
      if (std::holds_alternative<Spurious>(outcome)) return BehindLeaf(gfn, target->kind);
      if (const auto* failed = std::get_if<Failed>(&outcome)) return failed->status;
      if (std::holds_alternative<PagePending>(outcome)) {
        return absl::UnavailableError(absl::StrCat(NameOf(gfn), " is on its way; try again later"));
      }
      if (std::holds_alternative<MemoryFaultExit>(outcome) && LacksBacking(gfn, target->kind)) {
        return absl::FailedPreconditionError(
            absl::StrCat(NameOf(gfn), " lies in a memslot without ",
                         target->kind == MemoryKind::kPrivate ? "private" : "shared", " backing"));
      }
      // The page changed between two looks, or a change is under way: until that has ended.
      const Turn turn(vm_.turn_mutex);
    }
    return absl::AbortedError(
        absl::StrCat(NameOf(gfn), " keeps changing; try again when nobody converts it"));
  }

 private:
  absl::StatusOr<Target> TargetAt(Gfn gfn) const {
    const EpochGuard guard;
    if (vm_.slots.Find(guard, gfn) == nullptr) {
      return absl::FailedPreconditionError(absl::StrCat(NameOf(gfn), " is no memory any more"));
    }
    const MemoryAttributes of = vm_.attributes.Get(guard, gfn);
    if (kind_ && of.kind != *kind_) {
      return absl::FailedPreconditionError(absl::StrCat(
          NameOf(gfn),
          of.kind == MemoryKind::kPrivate ? " is private, not shared" : " is shared, not private",
          " memory; convert it first, or populate by attribute"));
    }
    return Target{of.kind, of.allowed()};
  }

  bool LacksBacking(Gfn gfn, MemoryKind kind) const {
    const EpochGuard guard;
    const Memslot* slot = vm_.slots.Find(guard, gfn);
    return slot != nullptr && !BackingOf(*slot, gfn, kind);
  }

  Gfn BehindLeaf(Gfn gfn, MemoryKind kind) const {
    const EpochGuard guard;
    Cursor at(guard, *vm_.env.pool, vm_.roots.Of(kind), GfnRange{gfn, 1});
    while (true) {
      const EptEntry entry = at.entry();
      const SlotState state = StateOf(entry, at.level());
      if (state == SlotState::kLeaf) return LeafRange(gfn, at.level()).end();
      // Gone again already: this page was there, of its neighbours nothing is known.
      if (state != SlotState::kLink || !at.Descend(entry)) return gfn + 1;
    }
  }

  AddressSpaceState& vm_;
  const std::optional<MemoryKind> kind_;
};

}  // namespace

absl::StatusOr<PrefaultResult> Prefault(AddressSpaceState& vm, GfnRange range,
                                        std::optional<MemoryKind> kind,
                                        const std::function<bool(uint64_t)>& progress) {
  if (absl::Status status = vm.bugs.Check(); !status.ok()) return status;
  {
    const EpochGuard guard;
    if (absl::Status status = CheckRange(vm, guard, range); !status.ok()) return status;
  }
  if (kind == MemoryKind::kShared && !vm.HasKind(MemoryKind::kShared)) {
    return absl::InvalidArgumentError("this VM has no shared bit, hence no shared memory");
  }
  Populator populator(vm, kind);
  PrefaultResult result;
  for (uint64_t told = 0; result.frames_done < range.count;) {
    const absl::StatusOr<Gfn> next = populator.PopulateAt(range.first + result.frames_done);
    if (!next.ok()) {
      result.status = next.status();
      break;
    }
    result.frames_done = std::min(*next - range.first, range.count);
    if (!progress || (result.frames_done - told < kChunk && result.frames_done < range.count)) {
      continue;
    }
    told = result.frames_done;
    if (!progress(told) && told < range.count) {
      result.status = absl::CancelledError("stopped by the caller");
      break;
    }
  }
  return result;
}

}  // namespace twinroot::mmu
