// The numbers of the daemon that are of no VM: its journal, the exits of all vCPUs together.
// Thread-safe.
#ifndef TWINROOT_DAEMON_OBS_HOST_COLLECTOR_H_
#define TWINROOT_DAEMON_OBS_HOST_COLLECTOR_H_

#include <vector>

#include "daemon/events/journal.h"
#include "daemon/host/exit_meter.h"
#include "prometheus/collectable.h"

namespace twinroot::obs {

class HostCollector final : public prometheus::Collectable {
 public:
  // Both outlive the collector.
  HostCollector(const events::Journal* journal, const host::ExitMeter* exits)
      : journal_(journal), exits_(exits) {}

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const events::Journal* const journal_;
  const host::ExitMeter* const exits_;
};

}  // namespace twinroot::obs

#endif  // TWINROOT_DAEMON_OBS_HOST_COLLECTOR_H_
