// Counts conversions from the very events that tell of them, so that a scrape and the event stream
// agree exactly. Series appear with a VM's first conversion and vanish when it is deleted; those of
// VMs without a label of their own are added up and stay. It tells VmLabels which VMs there are.
// Thread-safe.
#ifndef TWINROOT_DAEMON_OBS_CONVERSION_METRICS_H_
#define TWINROOT_DAEMON_OBS_CONVERSION_METRICS_H_

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "daemon/obs/vm_labels.h"
#include "prometheus/collectable.h"
#include "prometheus/family.h"
#include "prometheus/histogram.h"
#include "twinroot/v1/event.pb.h"

namespace twinroot::obs {

class ConversionMetrics final : public prometheus::Collectable {
 public:
  // `latency` (of the whole host, in seconds; by cause) and `labels` outlive this object.
  using Buckets = prometheus::Histogram::BucketBoundaries;
  ConversionMetrics(prometheus::Family<prometheus::Histogram>* latency, const Buckets& buckets,
                    VmLabels* labels);

  // The journal's observer: every event, in order.
  void Observe(const v1::Event& event);

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  using Kind = std::tuple<v1::Conversion::Direction, v1::Conversion::Cause>;
  using Outcome =
      std::tuple<v1::Conversion::Direction, v1::Conversion::Cause, v1::Conversion::Decision>;
  struct Counts {
    std::map<Outcome, uint64_t> conversions;
    std::map<Kind, uint64_t> applied_bytes;
    std::map<v1::Conversion::Quota, uint64_t> over_quota;
  };

  // A few VMs by name, after this one; the beginning is after "".
  std::vector<std::pair<std::string, Counts>> After(const std::string& vm) const;

  std::map<v1::Conversion::Cause, prometheus::Histogram*> latency_;  // fixed
  VmLabels* const labels_;
  mutable std::mutex mutex_;
  std::map<std::string, Counts> vms_;
};

}  // namespace twinroot::obs

#endif  // TWINROOT_DAEMON_OBS_CONVERSION_METRICS_H_
