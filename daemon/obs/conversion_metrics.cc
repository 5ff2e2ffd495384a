#include "daemon/obs/conversion_metrics.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/strip.h"
#include "daemon/obs/family.h"

namespace twinroot::obs {
namespace {

constexpr size_t kVmsAtOnce = 32;

// "DIRECTION_TO_SHARED" without its prefix, in lower case: "to_shared".
std::string LabelOf(const std::string& name, const char* prefix) {
  return absl::AsciiStrToLower(absl::StripPrefix(name, prefix));
}
std::string LabelOf(v1::Conversion::Direction direction) {
  return LabelOf(v1::Conversion::Direction_Name(direction), "DIRECTION_");
}
std::string LabelOf(v1::Conversion::Cause cause) {
  return LabelOf(v1::Conversion::Cause_Name(cause), "CAUSE_");
}
std::string LabelOf(v1::Conversion::Decision decision) {
  return LabelOf(v1::Conversion::Decision_Name(decision), "DECISION_");
}

std::string LabelOf(v1::Conversion::Quota quota) {
  return LabelOf(v1::Conversion::Quota_Name(quota), "QUOTA_");
}

}  // namespace

ConversionMetrics::ConversionMetrics(prometheus::Family<prometheus::Histogram>* latency,
                                     const Buckets& buckets, VmLabels* labels)
    : labels_(labels) {
  using Conversion = v1::Conversion;
  for (const auto cause :
       {Conversion::CAUSE_IMPLICIT, Conversion::CAUSE_EXPLICIT, Conversion::CAUSE_API}) {
    latency_[cause] = &latency->Add({{"cause", LabelOf(cause)}}, buckets);
  }
}

void ConversionMetrics::Observe(const v1::Event& event) {
  if (event.vm().empty()) return;
  if (event.vm_state().deleted()) {
    std::lock_guard lock(mutex_);
    vms_.erase(event.vm());
    labels_->Leave(event.vm());
    return;
  }
  const VmLabels::Label label = labels_->Enter(event.vm());
  if (!event.has_conversion()) return;
  const v1::Conversion& conversion = event.conversion();
  if (const auto latency = latency_.find(conversion.cause()); latency != latency_.end()) {
    latency->second->Observe(static_cast<double>(conversion.latency().seconds()) +
                             1e-9 * conversion.latency().nanos());
  }
  std::lock_guard lock(mutex_);
  Counts& counts = vms_[label == VmLabels::Label::kOwn ? event.vm() : kOther];
  ++counts.conversions[{conversion.direction(), conversion.cause(), conversion.decision()}];
  if (conversion.decision() == v1::Conversion::DECISION_APPLIED) {
    counts.applied_bytes[{conversion.direction(), conversion.cause()}] += conversion.size();
  } else if (conversion.decision() == v1::Conversion::DECISION_QUOTA) {
    ++counts.over_quota[conversion.quota()];
  }
}

std::vector<std::pair<std::string, ConversionMetrics::Counts>> ConversionMetrics::After(
    const std::string& vm) const {
  std::vector<std::pair<std::string, Counts>> some;
  some.reserve(kVmsAtOnce);
  std::lock_guard lock(mutex_);
  for (auto it = vms_.upper_bound(vm); it != vms_.end() && some.size() < kVmsAtOnce; ++it) {
    some.emplace_back(*it);
  }
  return some;
}

std::vector<prometheus::MetricFamily> ConversionMetrics::Collect() const {
  auto conversions = FamilyOf(kConversions);
  auto bytes = FamilyOf(kConvertedBytes);
  auto over_quota = FamilyOf(kOverQuota);
  // A conversion under way waits for a few VMs at most.
  std::vector<std::pair<std::string, Counts>> some;
  for (std::string after; !(some = After(after)).empty(); after = some.back().first) {
    for (const auto& [vm, counts] : some) {
      for (const auto& [outcome, count] : counts.conversions) {
        const auto& [direction, cause, decision] = outcome;
        AddSeries(conversions,
                  {{"vm", vm},
                   {"direction", LabelOf(direction)},
                   {"cause", LabelOf(cause)},
                   {"result", LabelOf(decision)}},
                  static_cast<double>(count));
      }
      for (const auto& [kind, count] : counts.applied_bytes) {
        const auto& [direction, cause] = kind;
        AddSeries(bytes, {{"vm", vm}, {"direction", LabelOf(direction)}, {"cause", LabelOf(cause)}},
                  static_cast<double>(count));
      }
      for (const auto& [quota, count] : counts.over_quota) {
        AddSeries(over_quota, {{"vm", vm}, {"quota", LabelOf(quota)}}, static_cast<double>(count));
      }
    }
  }
  return {std::move(conversions), std::move(bytes), std::move(over_quota)};
}

}  // namespace twinroot::obs
