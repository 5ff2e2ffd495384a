#include "mmu/vm/dirty_log.h"

#include <algorithm>
#include <atomic>
#include <utility>

namespace twinroot::mmu {

absl::StatusOr<std::unique_ptr<const DirtyLog>> DirtyLog::Create(
    const DirtyLogOptions& options, const std::vector<GfnRange>& slots) {
  static std::atomic<uint64_t> sessions{0};
  DirtyLog empty(options, sessions.fetch_add(1, std::memory_order_relaxed));
  for (uint32_t i = 0; options.ring_entries != 0 && i < options.ring_vcpus; ++i) {
    empty.rings_.push_back(std::make_shared<DirtyRing>(options.ring_entries));
  }
  absl::StatusOr<std::unique_ptr<const DirtyLog>> log = empty.ForSlots(slots);
  if (log.ok() && options.initially_all_set) {
    for (const auto& bitmap : (*log)->bitmaps_) bitmap->MarkRange(bitmap->slot());
  }
  return log;
}

absl::StatusOr<std::unique_ptr<const DirtyLog>> DirtyLog::ForSlots(
    const std::vector<GfnRange>& slots) const {
  std::unique_ptr<DirtyLog> log(new DirtyLog(options_, session_));
  log->rings_ = rings_;
  for (const GfnRange& slot : slots) {
    const auto kept = std::find_if(bitmaps_.begin(), bitmaps_.end(),
                                   [&slot](const auto& b) { return b->slot() == slot; });
    log->bitmaps_.push_back(kept != bitmaps_.end() ? *kept : DirtyBitmap::Create(slot));
    if (log->bitmaps_.back() == nullptr) {
      return absl::ResourceExhaustedError("no memory for the dirty bitmap of a memslot");
    }
  }
  return std::unique_ptr<const DirtyLog>(std::move(log));
}

void DirtyLog::MarkPage(Gfn gfn) const {
  const auto it =
      std::upper_bound(bitmaps_.begin(), bitmaps_.end(), gfn,
                       [](Gfn at, const auto& bitmap) { return at < bitmap->slot().end(); });
  if (it != bitmaps_.end() && (*it)->slot().Contains(gfn)) (*it)->Mark(gfn);
}

void DirtyLog::MarkRange(GfnRange range) const {
  auto it =
      std::upper_bound(bitmaps_.begin(), bitmaps_.end(), range.first,
                       [](Gfn first, const auto& bitmap) { return first < bitmap->slot().end(); });
  for (; it != bitmaps_.end() && (*it)->slot().Overlaps(range); ++it) {
    (*it)->MarkRange(Intersection(range, (*it)->slot()));
  }
}

}  // namespace twinroot::mmu
