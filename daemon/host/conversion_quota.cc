#include "daemon/host/conversion_quota.h"

#include <algorithm>

#include "mmu/types/level.h"

namespace twinroot::host {
namespace {

constexpr size_t kFewRegions = 1024;

uint64_t RegionOf(mmu::GfnRange range) {
  return range.first.value / mmu::FramesPerEntry(mmu::Level::k2M);
}

}  // namespace

ConversionQuota::ConversionQuota(const ConversionPolicy& policy)
    : max_turns_(policy.ping_pong_limit),
      window_(policy.ping_pong_window),
      forget_at_(kFewRegions) {
  const uint32_t rate = policy.max_conversions_per_second;
  if (rate == 0) return;
  interval_ = absl::Seconds(1) / rate;
  slack_ = interval_ * ((policy.conversion_burst != 0 ? policy.conversion_burst : rate) - 1);
}

absl::Time ConversionQuota::NextTurn(absl::Time now) const {
  return std::max(now, full_at_ - slack_);
}

void ConversionQuota::Take(absl::Time now) { full_at_ = std::max(full_at_, now) + interval_; }

bool ConversionQuota::TurnsTooOften(mmu::GfnRange range, Direction direction,
                                    absl::Time now) const {
  if (max_turns_ == 0) return false;
  const auto it = regions_.find(RegionOf(range));
  if (it == regions_.end()) return false;
  const Region& region = it->second;
  return region.last != direction && region.turns >= max_turns_ && now - region.since <= window_;
}

void ConversionQuota::Converted(mmu::GfnRange range, Direction direction, absl::Time now) {
  if (max_turns_ == 0) return;
  const auto [it, fresh] = regions_.try_emplace(RegionOf(range), Region{now, 0, direction});
  Region& region = it->second;
  if (region.last != direction) {
    if (region.turns == 0 || now - region.since > window_) {
      region.since = now;
      region.turns = 0;
    }
    ++region.turns;
    region.last = direction;
  }
  if (fresh && regions_.size() >= forget_at_) Forget(now);
}

// A region whose window is over begins anew in any case; but for its direction, which a guest may
// turn once for nothing.
void ConversionQuota::Forget(absl::Time now) {
  std::erase_if(regions_, [&](const auto& entry) { return now - entry.second.since > window_; });
  forget_at_ = std::max(kFewRegions, 2 * regions_.size());
}

}  // namespace twinroot::host
