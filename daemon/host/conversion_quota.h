// What a guest's conversions have used of its policy's rate and of its turns to and fro. Not
// thread-safe.
//
// The rate is a token bucket, kept as the one time at which it would be full again. Turns are
// counted for each aligned 2 MiB, in windows that begin with a turn.
#ifndef TWINROOT_DAEMON_HOST_CONVERSION_QUOTA_H_
#define TWINROOT_DAEMON_HOST_CONVERSION_QUOTA_H_

#include <cstdint>
#include <map>

#include "absl/time/time.h"
#include "daemon/host/vm.h"
#include "mmu/types/gfn_range.h"

namespace twinroot::host {

class ConversionQuota {
 public:
  explicit ConversionQuota(const ConversionPolicy& policy);

  // When the next conversion may be made: `now`, or later.
  absl::Time NextTurn(absl::Time now) const;
  // Takes the token of that time.
  void Take(absl::Time now);

  // Would this be one turn too many? The range lies in one aligned 2 MiB.
  bool TurnsTooOften(mmu::GfnRange range, Direction direction, absl::Time now) const;
  void Converted(mmu::GfnRange range, Direction direction, absl::Time now);

  size_t regions() const { return regions_.size(); }  // that are remembered

 private:
  struct Region {
    absl::Time since;  // the window's first turn
    uint32_t turns = 0;
    Direction last;
  };
  void Forget(absl::Time now);

  absl::Duration interval_;  // of tokens; zero: no bound
  absl::Duration slack_;     // how far ahead of its time a burst may be
  uint32_t max_turns_;       // 0: no bound
  absl::Duration window_;
  absl::Time full_at_ = absl::InfinitePast();
  std::map<uint64_t, Region> regions_;  // by the number of the 2 MiB
  size_t forget_at_;                    // regions
};

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_CONVERSION_QUOTA_H_
