#include "mmu/tables/flush_batch.h"

#include <algorithm>
#include <string>

namespace twinroot::mmu {

FlushBatch::~FlushBatch() {
  if (!removed_[0] && !removed_[1]) return;
  bugs_.ReportBug("a flush batch was destroyed before it was finished: " +
                  std::to_string(retired_.size()) + " table pages are lost");
}

void FlushBatch::AddLeaf(const Root& root, HwGfn frame, Level level) {
  Removed& removed = Of(root);
  Cover(removed, frame, level);
  if (root.external == nullptr) return;
  const GfnRange leaf{root.GfnOf(frame), FramesPerEntry(level)};
  if (!removed.leaves.empty() && removed.leaves.back().end() == leaf.first) {
    removed.leaves.back().count += leaf.count;
  } else {
    removed.leaves.push_back(leaf);
  }
}

void FlushBatch::AddTable(const Root& root, HwGfn frame, Level level, Table& table) {
  Cover(Of(root), frame, level);
  retired_.push_back(&table);
}

absl::Status FlushBatch::Finish(const MmuLock::Exclusive&) {
  absl::Status status;
  for (std::optional<Removed>& removed : removed_) {
    if (!removed) continue;
    if (flusher_ != nullptr) {
      flusher_->FlushRange(removed->root.kind, removed->first, removed->end - removed->first);
    }
    // An external table flushes by itself when it removes; it counts the same.
    if (flusher_ != nullptr || removed->root.external != nullptr) {
      counts_.range.fetch_add(1, std::memory_order_relaxed);
    }
  }
  for (std::optional<Removed>& removed : removed_) {
    if (!removed) continue;
    for (const GfnRange& leaves : removed->leaves) {
      absl::Status external = removed->root.external->Remove(leaves);
      if (!external.ok()) external = removed->root.external->Remove(leaves);
      if (!external.ok()) status.Update(external);
    }
    removed.reset();
  }
  // The flush is done, and an external table never refers to our pages.
  for (Table* table : retired_) pool_.Free(*table);
  retired_.clear();
  if (!status.ok()) {
    bugs_.ReportBug("an external table did not remove what was zapped: " +
                    std::string(status.message()));
  }
  return status;
}

FlushBatch::Removed& FlushBatch::Of(const Root& root) {
  std::optional<Removed>& removed = removed_[static_cast<int>(root.kind)];
  if (!removed) removed = Removed{root, HwGfn(~uint64_t{0}), HwGfn(0), {}};
  return *removed;
}

void FlushBatch::Cover(Removed& removed, HwGfn frame, Level level) {
  removed.first = std::min(removed.first, frame);
  removed.end = std::max(removed.end, frame + FramesPerEntry(level));
}

}  // namespace twinroot::mmu
