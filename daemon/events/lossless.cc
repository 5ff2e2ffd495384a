#include "daemon/events/lossless.h"

#include <algorithm>
#include <utility>

namespace twinroot::events {

std::shared_ptr<LosslessWatches::Watch> LosslessWatches::Add(Filter filter, uint64_t position,
                                                             absl::Duration hold) {
  std::shared_ptr<Watch> watch(new Watch(std::move(filter), position, hold));
  std::lock_guard lock(mutex_);
  watches_.push_back(watch);
  count_.store(watches_.size(), std::memory_order_release);
  return watch;
}

void LosslessWatches::Reached(Watch& watch, uint64_t position, uint64_t next) {
  {
    std::lock_guard lock(mutex_);
    watch.position_ = position;
    // Half of the room, so that makers are not woken for each event.
    if (!watch.since_.has_value() || next - std::min(position, next) > kRoom / 2) return;
    watch.since_.reset();
  }
  changed_.Call();
}

void LosslessWatches::Remove(Watch& watch) {
  {
    std::lock_guard lock(mutex_);
    std::erase_if(watches_, [&](const auto& other) { return other.get() == &watch; });
    count_.store(watches_.size(), std::memory_order_release);
  }
  changed_.Call();
}

bool LosslessWatches::Holds(Watch& watch, uint64_t next, absl::Time now, bool& expired) {
  if (watch.expired()) return false;
  if (!watch.since_.has_value()) {
    if (next - std::min(watch.position_, next) <= kRoom) return false;
    watch.since_ = now;
  }
  if (now < *watch.since_ + watch.hold_) return true;
  watch.expired_.store(true, std::memory_order_release);
  expired = true;
  return false;
}

std::optional<absl::Time> LosslessWatches::HeldUntil(const std::string& vm, uint64_t next,
                                                     absl::Time now) {
  std::optional<absl::Time> until;
  bool expired = false;
  {
    std::lock_guard lock(mutex_);
    for (const std::shared_ptr<Watch>& watch : watches_) {
      if (!watch->filter_.WantsVm(vm) || !Holds(*watch, next, now, expired)) continue;
      const absl::Time end = *watch->since_ + watch->hold_;
      until = until.has_value() ? std::max(*until, end) : end;
    }
  }
  if (expired) changed_.Call();
  return until;
}

void LosslessWatches::Look(uint64_t next, absl::Time now) {
  bool expired = false;
  {
    std::lock_guard lock(mutex_);
    for (const std::shared_ptr<Watch>& watch : watches_) Holds(*watch, next, now, expired);
  }
  if (expired) changed_.Call();
}

uint64_t LosslessWatches::oldest() const {
  uint64_t oldest = std::numeric_limits<uint64_t>::max();
  if (!any()) return oldest;
  std::lock_guard lock(mutex_);
  for (const std::shared_ptr<Watch>& watch : watches_) {
    if (!watch->expired()) oldest = std::min(oldest, watch->position_);
  }
  return oldest;
}

}  // namespace twinroot::events
