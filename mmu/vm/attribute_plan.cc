#include "mmu/vm/attribute_plan.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "mmu/engine/leaves.h"
#include "mmu/engine/restrict.h"
#include "mmu/vm/attribute_parts.h"
#include "mmu/vm/chunks.h"
#include "mmu/vm/leaf_choice.h"

namespace twinroot::mmu {
namespace {

class Planner {
 public:
  Planner(const Turn& turn, const AddressSpaceState& vm, const AttributeChange& change)
      : turn_(turn), vm_(vm), change_(change) {}

  absl::StatusOr<AttributeChangePlan> Run() {
    if (absl::Status status = vm_.bugs.Check(); !status.ok()) return status;
    if (absl::Status status = CheckChange(vm_, turn_, change_); !status.ok()) return status;
    plan_.result.per_range.resize(change_.ranges.size());
    parts_ = PartsOf(vm_, turn_, change_);
    for (const AttributePart& part : parts_) {
      absl::Status& status = plan_.result.per_range[part.index].status;
      if (status.ok()) status = CheckBacking(vm_, turn_, part);
    }
    if (absl::Status status = StatusOf(change_, plan_.result); !status.ok()) return status;
    DropRefused(plan_.result, parts_);
    Report(parts_, plan_.result);
    for (const GfnRange& range : plan_.result.converted) {
      plan_.bytes_discarded += range.count * kPageSize;
      if (change_.content == Content::kPreserve) plan_.bytes_copied += range.count * kPageSize;
    }

    const std::vector<LeafAction> actions = ActionsOf(parts_);
    ForEachAlias(vm_, [&](const Root& alias) { PlanAlias(alias, actions); });
    return plan_;
  }

 private:
  void PlanAlias(const Root& alias, const std::vector<LeafAction>& all) {
    actions_.clear();
    for (const LeafAction& action : all) {
      if (action.kind == alias.kind) actions_.push_back(action);
    }
    flushed_ = false;
    Gfn done(0);  // a leaf may reach into several actions
    for (const LeafAction& action : actions_) {
      ForEachLeaf(turn_, *vm_.env.pool, alias, action.range,
                  [&](Gfn first, Level level, EptEntry leaf) {
                    if (first < done) return;
                    done = first + FramesPerEntry(level);
                    PlanLeaf(alias, first, level, leaf);
                  });
    }
    CountFlush(alias);
    PlanRecovery(alias);
  }

  // The first action with a frame of the range, or null.
  const LeafAction* FirstActionOn(GfnRange range) const {
    const auto it =
        std::upper_bound(actions_.begin(), actions_.end(), range.first,
                         [](Gfn first, const LeafAction& at) { return first < at.range.end(); });
    return it != actions_.end() && it->range.Overlaps(range) ? &*it : nullptr;
  }

  void PlanLeaf(const Root& alias, Gfn first, Level level, EptEntry leaf) {
    const GfnRange range{first, FramesPerEntry(level)};
    const LeafAction* action = FirstActionOn(range);
    if (action == nullptr) return;
    if (action->range.Contains(range)) {
      switch (FateOf(alias, *action, leaf)) {
        case Restriction::kNothing:
          return;
        case Restriction::kUnseen:
          ++plan_.restricted.At(alias.kind, level);
          return;
        case Restriction::kInPlace:
          ++plan_.restricted.At(alias.kind, level);
          break;
        case Restriction::kGone:
          ++plan_.zapped.At(alias.kind, level);
          break;
      }
      flushed_ = true;
      return;
    }
    if (alias.external != nullptr && !alias.external->CanSplit()) {
      ++plan_.splits_kept;
      ++plan_.zapped.At(alias.kind, level);
      flushed_ = true;
      return;
    }
    ++plan_.split.At(alias.kind, level);
    ++plan_.tables_needed;
    const EptEntry child = MakeSplitLeaf(leaf, level);
    for (uint64_t i = 0; i < kEntriesPerTable; ++i) {
      PlanLeaf(alias, first + i * FramesPerEntry(Below(level)), Below(level), child);
    }
  }

  static Restriction FateOf(const Root& alias, const LeafAction& action, EptEntry leaf) {
    const Access keep = KeptBy(alias, action);
    return keep.empty() ? Restriction::kGone : RestrictionOf(leaf, keep);
  }

  void PlanRecovery(const Root& alias) {
    flushed_ = false;
    std::vector<GfnRange> recovered;  // of 1 GiB: what is inside is done
    for (const RecoverySpot& spot : SpotsOf(parts_)) {
      if (spot.to.kind != alias.kind || !MayBeLarge(alias, spot)) continue;
      LeafTally below;
      uint64_t leaves = 0;
      bool table = true;
      const GfnRange range{spot.first, FramesPerEntry(spot.level)};
      if (std::any_of(recovered.begin(), recovered.end(),
                      [&](const GfnRange& large) { return large.Contains(range); })) {
        continue;
      }
      ForEachLeaf(turn_, *vm_.env.pool, alias, range, [&](Gfn first, Level level, EptEntry leaf) {
        table = table && level < spot.level;
        const LeafAction* action = FirstActionOn({first, FramesPerEntry(level)});
        if (action != nullptr && FateOf(alias, *action, leaf) == Restriction::kGone) return;
        ++below.At(alias.kind, level);
        ++leaves;
      });
      if (!table || leaves == 0) continue;
      for (const Level level : {Level::k4K, Level::k2M}) {
        plan_.covered.At(alias.kind, level) += below.At(alias.kind, level);
      }
      ++plan_.recovered.At(alias.kind, spot.level);
      if (spot.level == Level::k1G) recovered.push_back(range);
      flushed_ = true;
    }
    CountFlush(alias);
  }

  // When the change is done.
  bool MayBeLarge(const Root& alias, const RecoverySpot& spot) const {
    // What its owner would merge is not asked.
    return alias.external == nullptr &&
           LargeLeaf(vm_, turn_, alias, spot.first, spot.level, spot.to, [&](Level level) {
             return UniformAfter(LeafRange(spot.first, level), spot.to);
           }).has_value();
  }

  bool UniformAfter(GfnRange range, MemoryAttributes to) const {
    uint64_t same = 0;
    vm_.attributes.ForEachRun(turn_, range, [&](GfnRange run, MemoryAttributes now) {
      if (now == to) same += run.count;
    });
    for (const AttributePart& part : parts_) {
      const uint64_t count = Intersection(part.range, range).count;
      if (part.from == to) same -= count;
      if (part.to == to) same += count;
    }
    return same == range.count;
  }

  void CountFlush(const Root& alias) {
    if (!flushed_ || (vm_.env.flusher == nullptr && alias.external == nullptr)) return;
    ++plan_.flushes[static_cast<int>(alias.kind)][alias.execute_only ? 1 : 0];
  }

  const Turn& turn_;
  const AddressSpaceState& vm_;
  const AttributeChange& change_;
  AttributeChangePlan plan_;
  std::vector<AttributePart> parts_;
  // Of the alias that is looked at.
  std::vector<LeafAction> actions_;
  bool flushed_ = false;
};

}  // namespace

absl::StatusOr<AttributeChangePlan> PlanAttributes(const AddressSpaceState& vm,
                                                   const AttributeChange& change) {
  const Turn turn(vm.turn_mutex);
  return Planner(turn, vm, change).Run();
}

}  // namespace twinroot::mmu
