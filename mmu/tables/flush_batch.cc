#include "mmu/tables/flush_batch.h"

#include <algorithm>
#include <string>
#include <utility>

namespace twinroot::mmu {

absl::Status CheckRemoved(const absl::Status& external, BugSink& bugs) {
  if (external.ok()) return external;
  const std::string what =
      "an external table did not remove what was zapped: " + std::string(external.message());
  bugs.ReportBug(what);
  return absl::InternalError(what);
}

bool FlushBatch::empty() const {
  return std::none_of(std::begin(removed_), std::end(removed_),
                      [](const auto& removed) { return removed.has_value(); });
}

FlushBatch::~FlushBatch() {
  if (empty()) return;
  bugs_.ReportBug("a flush batch was destroyed before it was finished: " +
                  std::to_string(retired_.size()) + " table pages are lost");
}

void FlushBatch::AddTable(const Root& root, HwGfn frame, Level level, Table& table) {
  Cover(Of(root), frame, FramesPerEntry(level));
  retired_.Push(table);
}

void FlushBatch::AddSubtree(const Root& root, HwGfn frame, Level level, Table& table) {
  Removed& removed = Of(root);
  Cover(removed, frame, FramesPerEntry(level));
  TellExternal(removed, {root.GfnOf(frame), FramesPerEntry(level)});
  removed.subtrees.push_back({&table, nullptr});
}

void FlushBatch::AddCovered(const Root& root, HwGfn frame, Level level, EntrySlot& slot,
                            Table& table) {
  Removed& removed = Of(root);
  Cover(removed, frame, FramesPerEntry(level));
  removed.subtrees.push_back({&table, &slot});
}

absl::Status FlushBatch::Finish(const Turn& turn) {
  if (empty()) return absl::OkStatus();
  const bool subtrees = std::any_of(std::begin(removed_), std::end(removed_),
                                    [](const auto& r) { return r && !r->subtrees.empty(); });
  // Faults inside what was detached finish first: what they publish there is still flushed.
  if (subtrees) SynchronizeEpoch();
  for (std::optional<Removed>& removed : removed_) {
    if (!removed) continue;
    if (flusher_ != nullptr) {
      flusher_->FlushRange(removed->root.kind, removed->first, removed->end - removed->first);
    }
    // An external table flushes by itself when it removes; it counts the same.
    if (flusher_ != nullptr || removed->root.external != nullptr) counts_.Add(VmCount::kFlushRange);
  }
  absl::Status status;
  for (std::optional<Removed>& removed : removed_) {
    if (!removed) continue;
    // Waits for slots that a fault holds frozen while it tells the external table.
    for (const Removed::Subtree& subtree : removed->subtrees) {
      const bool covered = subtree.covered_by != nullptr;
      const Level level = Above(subtree.table->level());
      const EptEntry flags = TakeDown(turn, removed->root, *subtree.table, covered);
      if (covered) change_.AddAccessedDirty(turn, *subtree.covered_by, level, flags);
    }
    for (const GfnRange& leaves : removed->leaves) {
      absl::Status external = removed->root.external->Remove(leaves);
      if (!external.ok()) external = removed->root.external->Remove(leaves);
      if (!external.ok()) status.Update(external);
    }
    removed.reset();
  }
  // The flush is done, and an external table never refers to our pages.
  pool_.Retire(std::exchange(retired_, {}));
  return CheckRemoved(status, bugs_);
}

EptEntry FlushBatch::TakeDown(const Turn& turn, const Root& root, Table& table, bool covered) {
  const Level level = table.level();
  uint64_t leaves = 0;
  EptEntry flags;
  for (uint64_t i = 0; i < kEntriesPerTable; ++i) {
    const EptEntry entry = EntryChange::Settle(turn, table.slots[i]);
    const SlotState state = StateOf(entry, level);
    if (state == SlotState::kLink) {
      if (Table* child = pool_.At(entry.address())) {
        flags = flags.WithFlagsOf(TakeDown(turn, root, *child, covered));
      }
    } else if (state == SlotState::kLeaf) {
      ++leaves;
      flags = flags.WithFlagsOf(entry);
      if (on_leaf_ && !covered) {
        on_leaf_(table.identity.gfn + i * FramesPerEntry(level), level, entry);
      }
    }
  }
  change_.Forget(turn, root, level, leaves);
  retired_.Push(table);
  return flags;
}

void FlushBatch::AddExternal(Removed& removed, GfnRange range) {
  if (!removed.leaves.empty() && removed.leaves.back().end() == range.first) {
    removed.leaves.back().count += range.count;
  } else {
    removed.leaves.push_back(range);
  }
}

}  // namespace twinroot::mmu
