// The numbers of every VM, asked for when Prometheus scrapes: nothing is counted twice, nothing on
// the fault path, and the series of a VM are there exactly as long as the VM. 17 a VM, and one
// more for each rare thing that it has met (pages of 1 GiB, MMIO, splits by reason, harvests).
//
// VMs without a label of their own (VmLabels) are added up in vm="_other". Its counters never fall:
// they keep what was seen last of the VMs that are gone. Thread-safe; scrapes take turns.
#ifndef TWINROOT_DAEMON_OBS_VM_COLLECTOR_H_
#define TWINROOT_DAEMON_OBS_VM_COLLECTOR_H_

#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "daemon/host/vm_registry.h"
#include "daemon/obs/vm_labels.h"
#include "daemon/obs/vm_series.h"
#include "prometheus/collectable.h"

namespace twinroot::obs {

class VmCollector final : public prometheus::Collectable {
 public:
  // All outlive the collector.
  VmCollector(const host::VmRegistry* registry, const VmLabels* labels)
      : registry_(registry), labels_(labels) {}

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  // A VM of a name may be followed by another one.
  using Life = std::pair<std::string, absl::Time>;
  using Folded = std::vector<std::pair<Life, VmNumbers>>;  // ordered

  // What vm="_other" shows now; `folded` is what those VMs count.
  VmNumbers Fold(Folded folded) const;

  const host::VmRegistry* const registry_;
  const VmLabels* const labels_;
  mutable std::mutex mutex_;
  mutable Folded folded_;     // as of the last scrape
  mutable VmNumbers gone_{};  // counters of folded VMs that are gone
};

}  // namespace twinroot::obs

#endif  // TWINROOT_DAEMON_OBS_VM_COLLECTOR_H_
