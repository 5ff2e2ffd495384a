// The usual process_* metrics, read from /proc when scraped. Thread-safe.
#ifndef TWINROOT_DAEMON_OBS_PROCESS_COLLECTOR_H_
#define TWINROOT_DAEMON_OBS_PROCESS_COLLECTOR_H_

#include <vector>

#include "prometheus/collectable.h"

namespace twinroot::obs {

class ProcessCollector final : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override;
};

}  // namespace twinroot::obs

#endif  // TWINROOT_DAEMON_OBS_PROCESS_COLLECTOR_H_
