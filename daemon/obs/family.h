// Helpers to write metric families by hand, for numbers that are summed when scraped.
// Pure; thread-safe.
#ifndef TWINROOT_DAEMON_OBS_FAMILY_H_
#define TWINROOT_DAEMON_OBS_FAMILY_H_

#include <initializer_list>
#include <string>
#include <utility>

#include "prometheus/metric_family.h"

namespace twinroot::obs {

using Labels = std::initializer_list<std::pair<const char*, std::string>>;

inline prometheus::MetricFamily CounterFamily(const char* name, const char* help) {
  return {name, help, prometheus::MetricType::Counter, {}};
}
inline prometheus::MetricFamily GaugeFamily(const char* name, const char* help) {
  return {name, help, prometheus::MetricType::Gauge, {}};
}

// Adds one series; its value goes where the family's type says.
inline void AddSeries(prometheus::MetricFamily& family, Labels labels, double value) {
  prometheus::ClientMetric& metric = family.metric.emplace_back();
  for (const auto& [name, text] : labels) metric.label.push_back({name, text});
  if (family.type == prometheus::MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
}

}  // namespace twinroot::obs

#endif  // TWINROOT_DAEMON_OBS_FAMILY_H_
