#include "mmu/vm/attribute_change.h"

#include <optional>
#include <utility>

#include "mmu/engine/restrict.h"
#include "mmu/engine/zap.h"
#include "mmu/tables/descent.h"
#include "mmu/vm/chunks.h"
#include "mmu/vm/invalidation.h"
#include "mmu/vm/page_sizes.h"

namespace twinroot::mmu {
namespace {

class Change {
 public:
  Change(const Turn& turn, AddressSpaceState& vm, const AttributeChange& change)
      : turn_(turn), vm_(vm), change_(change) {}

  absl::StatusOr<AttributeChangeResult> Run() {
    if (absl::Status status = vm_.bugs.Check(); !status.ok()) return status;
    if (absl::Status status = CheckChange(vm_, turn_, change_); !status.ok()) return status;
    AttributeChangeResult result;
    result.per_range.resize(change_.ranges.size());
    parts_ = PartsOf(vm_, turn_, change_);
    if (parts_.empty()) return result;
    const std::vector<AttributePart> all = parts_;

    Reserve(result);
    absl::Status status = StatusOf(change_, result);
    if (status.ok() && !parts_.empty()) status = Apply();
    // Only now: one range's splits may serve another until all are set.
    for (const AttributePart& part : all) vm_.attributes.Collapse(turn_, part.range);
    if (status.ok()) status = Recover();
    if (!status.ok()) return status;
    Report(parts_, result);
    return result;
  }

 private:
  // Everything that can fail for want of memory, in the order of the call. Parts of ranges that
  // were refused leave parts_. Nothing that will not be used stays reserved.
  void Reserve(AttributeChangeResult& result) {
    // The parts of one range lie together.
    std::vector<absl::Span<const AttributePart>> by_range(result.per_range.size());
    for (size_t i = 0; i < parts_.size(); ++i) {
      absl::Span<const AttributePart>& of = by_range[parts_[i].index];
      of = absl::MakeConstSpan(of.empty() ? &parts_[i] : of.data(), of.size() + 1);
    }
    for (size_t i = 0; i < by_range.size(); ++i) {
      absl::Status& status = result.per_range[i].status;
      status = ReserveParts(by_range[i]);
      if (status.ok()) continue;
      Unreserve(by_range[i]);
      if (change_.atomicity == Atomicity::kEach) continue;
      while (i-- > 0) Unreserve(by_range[i]);
      break;
    }
    DropRefused(result, parts_);
  }

  absl::Status ReserveParts(absl::Span<const AttributePart> parts) {
    for (const AttributePart& part : parts) {
      if (absl::Status status = CheckBacking(vm_, turn_, part); !status.ok()) return status;
    }
    for (const AttributePart& part : parts) {
      absl::Status status = vm_.attributes.Prepare(turn_, part.range, part.to);
      if (status.ok() && Copies(part)) status = vm_.env.pages->Reserve(part.range, part.to.kind);
      if (!status.ok()) return Named(part, status);
    }
    return absl::OkStatus();
  }

  bool Copies(const AttributePart& part) const {
    return part.converts() && change_.content == Content::kPreserve;
  }
  // No page of the new kind holds anything yet: what was reserved may go.
  void Unreserve(absl::Span<const AttributePart> parts) {
    for (const AttributePart& part : parts) {
      if (Copies(part) && CheckBacking(vm_, turn_, part).ok()) {
        vm_.env.pages->Discard(part.range, part.to.kind);
      }
    }
  }

  absl::Status Apply() {
    const std::vector<LeafAction> actions = ActionsOf(parts_);
    SplitEnds(actions);
    Invalidation invalidation(turn_, vm_, Ranges(parts_));
    if (absl::Status status = TakeLeaves(actions); !status.ok()) return status;
    MoveContent();
    invalidation.Commit([&] { Commit(); });
    return absl::OkStatus();
  }

  // Leaves that reach over an end of a range are split along it, and the rest stays mapped. What
  // finds no table goes whole. Before the change begins: the translations stay the same.
  void SplitEnds(const std::vector<LeafAction>& actions) {
    SplitResult ignored;
    ForEachAlias(vm_, [&](const Root& alias) {
      GfnRange kept;
      const auto split_at = [&](Gfn end, Gfn inside) {
        const std::optional<Level> target = LargestBeside(end);
        if (!target || kept.Contains(inside)) return;
        // Most ends lie between small pages, or where nothing is mapped.
        const Descent at = Descend(turn_, *vm_.env.pool, alias, inside);
        if (at.slot == nullptr || at.level <= *target || at.entry == kEmptyEntry) return;
        SplitAlias(turn_, vm_, alias, {inside, 1}, *target, VmCount::kSplitConversion, ignored,
                   [&](HwGfn frame, Level level) {
                     kept = {alias.GfnOf(frame), FramesPerEntry(level)};
                   });
      };
      for (const LeafAction& action : actions) {
        if (action.kind != alias.kind) continue;
        split_at(action.range.first, action.range.first);
        split_at(action.range.end(), action.range.end() - 1);
      }
    });
  }

  // One flush for each alias, however many ranges.
  absl::Status TakeLeaves(const std::vector<LeafAction>& actions) {
    // Shadows of the whole range: they come back by faults, with the rights that are left.
    if (vm_.shadow != nullptr) vm_.shadow->Zap(turn_, Ranges(parts_));
    FlushBatch batch = vm_.NewBatch();
    ForEachAlias(vm_, [&](const Root& alias) {
      for (const LeafAction& action : actions) {
        if (action.kind != alias.kind) continue;
        const Access keep = KeptBy(alias, action);
        if (keep.empty()) {
          Zap(turn_, *vm_.env.pool, vm_.change, alias, action.range, batch);
        } else {
          Restrict(turn_, *vm_.env.pool, vm_.change, alias, action.range, keep, batch);
        }
      }
    });
    return batch.Finish(turn_);
  }

  // No mapping of the old kind is left and none of the new one is made before the commit, so
  // nobody sees this half done.
  void MoveContent() {
    for (const AttributePart& part : parts_) {
      if (!part.converts()) continue;
      if (Copies(part)) vm_.env.pages->Copy(part.range, part.from.kind, part.to.kind);
      vm_.env.pages->Discard(part.range, part.from.kind);
    }
  }

  void Commit() {
    const DirtyLog* log = vm_.log.load();
    for (const AttributePart& part : parts_) {
      vm_.attributes.Set(turn_, part.range, part.to);
      if (!part.converts()) continue;
      vm_.frames[static_cast<int>(part.from.kind)] -= part.range.count;
      vm_.frames[static_cast<int>(part.to.kind)] += part.range.count;
      // Whoever follows the log must hear of bytes that were destroyed or moved.
      if (log != nullptr) log->MarkRange(part.range);
    }
  }

  // Where a large range is uniform again, its large page comes back in place (F5).
  absl::Status Recover() {
    FlushBatch batch = vm_.NewBatch();
    uint64_t recovered = 0;
    for (const RecoverySpot& spot : SpotsOf(parts_)) {
      recovered += RecoverLeaf(turn_, vm_, spot.first, spot.level, spot.to.kind, batch);
    }
    vm_.counts.Add(VmCount::kCollapseAttributes, recovered);
    return batch.Finish(turn_);
  }

  const Turn& turn_;
  AddressSpaceState& vm_;
  const AttributeChange& change_;
  std::vector<AttributePart> parts_;
};

}  // namespace

absl::StatusOr<AttributeChangeResult> ChangeAttributes(AddressSpaceState& vm,
                                                       const AttributeChange& change) {
  const Turn turn(vm.turn_mutex);
  return Change(turn, vm, change).Run();
}

}  // namespace twinroot::mmu
