#include "daemon/access/denial_limit.h"

#include <utility>

#include "spdlog/spdlog.h"

namespace twinroot::access {

std::optional<uint32_t> DenialLimit::Take(const std::string& principal, absl::Time now) {
  bool first = false;
  {
    std::lock_guard lock(mutex_);
    Count& count = Of(principal, now);
    if (now - count.begin >= kWindow || now < count.begin) {  // clocks are set
      count.begin = now;
      count.lines = 0;
    }
    if (count.lines < kLines) {
      ++count.lines;
      return std::exchange(count.left_out, 0);
    }
    first = count.left_out++ == 0;
  }
  if (first) {
    spdlog::warn(
        "{} was denied {} calls within {}: the audit log leaves out more of them and counts them "
        "in the next line",
        principal, kLines, absl::FormatDuration(kWindow));
  }
  return std::nullopt;
}

DenialLimit::Count& DenialLimit::Of(const std::string& principal, absl::Time now) {
  if (const auto found = counts_.find(principal); found != counts_.end()) return found->second;
  if (counts_.size() >= kMaxPrincipals) {
    std::erase_if(counts_,
                  [now](const auto& entry) { return now - entry.second.begin >= kWindow; });
  }
  return counts_.size() < kMaxPrincipals ? counts_[principal] : others_;
}

}  // namespace twinroot::access
