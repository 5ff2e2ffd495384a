// To write metric families by hand, for numbers that are summed when scraped.
// Pure; thread-safe.
#ifndef TWINROOT_DAEMON_OBS_FAMILY_H_
#define TWINROOT_DAEMON_OBS_FAMILY_H_

#include <array>
#include <initializer_list>
#include <string>
#include <utility>

#include "daemon/obs/catalogue.h"
#include "prometheus/detail/builder.h"
#include "prometheus/metric_family.h"

namespace twinroot::obs {

using Labels = std::initializer_list<std::pair<const char*, std::string>>;

// The value goes where the family's type says.
inline void SetValue(const prometheus::MetricFamily& family, prometheus::ClientMetric& metric,
                     double value) {
  if (family.type == prometheus::MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
}

// Of a family whose series the library keeps: T is its Counter, Gauge or Histogram.
template <typename T>
prometheus::detail::Builder<T> BuilderOf(const Metric& metric) {
  return prometheus::detail::Builder<T>()
      .Name(std::string(metric.name))
      .Help(std::string(metric.help));
}

// Adds one series.
inline void AddSeries(prometheus::MetricFamily& family, Labels labels, double value) {
  prometheus::ClientMetric& metric = family.metric.emplace_back();
  for (const auto& [name, text] : labels) metric.label.push_back({name, text});
  SetValue(family, metric, value);
}

// The same of a VM, for many of them; a label whose name is null is none.
inline void AddSeries(prometheus::MetricFamily& family, const std::string& vm,
                      const std::array<std::pair<const char*, const char*>, 2>& labels,
                      double value) {
  prometheus::ClientMetric& metric = family.metric.emplace_back();
  metric.label.reserve(1 + labels.size());
  metric.label.push_back({std::string(kVmLabel), vm});
  for (const auto& [name, text] : labels) {
    if (name != nullptr) metric.label.push_back({name, text});
  }
  SetValue(family, metric, value);
}

}  // namespace twinroot::obs

#endif  // TWINROOT_DAEMON_OBS_FAMILY_H_
