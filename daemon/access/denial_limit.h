// How many denied calls of one principal get a line in the audit log: whoever may do nothing must
// not be able to fill the disk. Thread-safe.
#ifndef TWINROOT_DAEMON_ACCESS_DENIAL_LIMIT_H_
#define TWINROOT_DAEMON_ACCESS_DENIAL_LIMIT_H_

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

#include "absl/time/time.h"

namespace twinroot::access {

class DenialLimit {
 public:
  static constexpr uint32_t kLines = 60;  // of one principal, in a window
  static constexpr absl::Duration kWindow = absl::Minutes(1);
  static constexpr size_t kMaxPrincipals = 1024;  // the others share one count

  // nullopt: no line. Else how many of this principal had none since its last one.
  std::optional<uint32_t> Take(const std::string& principal, absl::Time now);

 private:
  struct Count {
    absl::Time begin = absl::InfinitePast();
    uint32_t lines = 0;
    uint32_t left_out = 0;
  };
  Count& Of(const std::string& principal, absl::Time now);

  std::mutex mutex_;
  std::unordered_map<std::string, Count> counts_;  // `mutex_`
  Count others_;                                   // `mutex_`
};

}  // namespace twinroot::access

#endif  // TWINROOT_DAEMON_ACCESS_DENIAL_LIMIT_H_
