#include "daemon/events/compaction.h"

#include <algorithm>

namespace twinroot::events {
namespace {

// More than a commit adds, so that removal keeps up with a flood.
constexpr size_t kStep = 8192;
// A journal that nobody appends to only grows older.
constexpr absl::Duration kIdleLook = absl::Minutes(1);
constexpr absl::Duration kAfterFailure = absl::Seconds(10);

}  // namespace

Compaction::Compaction(const Limits& limits, absl::Duration notice, Store* store)
    : limits_(limits), notice_(notice), store_(store) {}

absl::StatusOr<bool> Compaction::Look(uint64_t first, uint64_t next, uint64_t keep_from,
                                      absl::Time now) {
  if (first < horizon_) {
    // Who keeps it from being removed is asked again now and then.
    if (now >= announced_ + notice_) not_before_ = now + Pause();
    return false;
  }
  if (now < std::max(looked_ + Pause(), not_before_)) return false;
  looked_ = now;
  looked_at_ = next;
  const absl::StatusOr<uint64_t> target = Target(first, next, now);
  if (!target.ok()) return target.status();
  const uint64_t horizon = std::min(*target, keep_from);
  if (horizon <= first) return false;
  horizon_ = horizon;
  announced_ = now;
  return true;
}

absl::StatusOr<uint64_t> Compaction::Target(uint64_t first, uint64_t next, absl::Time now) {
  uint64_t target = first;
  if (next - first > limits_.max_events) target = next - limits_.max_events;
  const absl::StatusOr<uint64_t> bytes = store_->Bytes();
  if (!bytes.ok()) return bytes.status();
  bytes_ = *bytes;
  if (*bytes > limits_.max_bytes) {
    // Events are much of one size: so many make what is too much, and a little room.
    const double excess =
        1.0 - 0.95 * static_cast<double>(limits_.max_bytes) / static_cast<double>(*bytes);
    target = std::max(
        target, first + 1 + static_cast<uint64_t>(excess * static_cast<double>(next - first)));
  }
  const absl::StatusOr<uint64_t> expired = store_->Expired(now - limits_.max_age, kStep);
  if (!expired.ok()) return expired.status();
  return std::min(std::max(target, *expired), next - std::min<uint64_t>(next, 1));
}

absl::StatusOr<uint64_t> Compaction::Step(uint64_t first, uint64_t keep_from) {
  const absl::StatusOr<uint64_t> left = store_->DropBefore(std::min(horizon_, keep_from), kStep);
  // The newest entry stays, even if it is a hole that reaches over the horizon.
  if (left.ok() && *left == first) horizon_ = first;
  return left;
}

absl::Time Compaction::Next(uint64_t first, uint64_t next) const {
  if (first < horizon_) return std::max(announced_ + notice_, not_before_);
  return std::max(looked_ + (next == looked_at_ ? kIdleLook : Pause()), not_before_);
}

void Compaction::Postpone(absl::Time now) { not_before_ = now + kAfterFailure; }

}  // namespace twinroot::events
