// The numbers of every VM, asked for when Prometheus scrapes: nothing is counted twice, nothing on
// the fault path, and the series of a VM are there exactly as long as the VM. 17 a VM, and one
// more for each rare thing that it has met (pages of 1 GiB, MMIO, splits by reason, harvests): 31
// at most, and no more than 20 on average. Thread-safe.
#ifndef TWINROOT_DAEMON_OBS_VM_COLLECTOR_H_
#define TWINROOT_DAEMON_OBS_VM_COLLECTOR_H_

#include <vector>

#include "daemon/events/journal.h"
#include "daemon/host/vm_registry.h"
#include "prometheus/collectable.h"

namespace twinroot::obs {

class VmCollector final : public prometheus::Collectable {
 public:
  // Both outlive the collector.
  VmCollector(const host::VmRegistry* registry, const events::Journal* journal)
      : registry_(registry), journal_(journal) {}

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const host::VmRegistry* const registry_;
  const events::Journal* const journal_;
};

}  // namespace twinroot::obs

#endif  // TWINROOT_DAEMON_OBS_VM_COLLECTOR_H_
