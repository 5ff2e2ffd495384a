// Every metric that the daemon serves: the only place where one gets its name, its type, its labels
// and its words. docs/METRICS.md is written from it (metrics_document.cc).
// Plain values; thread-safe.
#ifndef TWINROOT_DAEMON_OBS_CATALOGUE_H_
#define TWINROOT_DAEMON_OBS_CATALOGUE_H_

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "prometheus/metric_family.h"

namespace twinroot::obs {

using Type = prometheus::MetricType;
// Names of labels, and for a label of few values all of them: {"kind", "private shared"}.
using LabelNames = std::vector<std::pair<std::string_view, std::string_view>>;

struct Metric {
  std::string_view name;
  Type type;
  std::string_view unit;
  std::string_view help;
  LabelNames labels = {};
};

inline constexpr std::string_view kVmLabel = "vm";

// In the order of the document.
struct Room {
  std::string_view title;
  std::vector<const Metric*> metrics;
};
const std::vector<Room>& Catalogue();

// An empty family, to which series are added.
inline prometheus::MetricFamily FamilyOf(const Metric& metric) {
  return {std::string(metric.name), std::string(metric.help), metric.type, {}};
}

// Of each VM.
extern const Metric kFaults, kFastFaults, kMmioCached, kInvalidations, kLeaves, kShadowLeaves,
    kShadowPages, kTablePages, kTablePagesBudget, kDetachedTables, kFlushes, kAttributeBytes,
    kAllocatedBytes, kSplits, kSplitsKept, kCollapses, kDirtyLogEnabled, kDirtyPagesHarvested,
    kVcpusWaitingForHarvest, kProjectedLeaves, kProjectedLeavesKept, kKvmExits;
extern const Metric kConversions, kConvertedBytes, kOverQuota, kPending, kThrottled, kHeldBack;
// Of the host.
extern const Metric kVms, kMaxVms, kFoldedVms, kBuggedVms, kDraining, kExits, kFaultLatency,
    kConversionLatency;
extern const Metric kJournalEvents, kJournalBytes, kJournalWaiting, kJournalLost, kJournalFailed,
    kGaps, kGapEvents;
extern const Metric kCallsStarted, kCallsHandled, kCallLatency, kAuditFailures;
// Of the library that serves them.
extern const Metric kScrapes, kScrapeBytes, kScrapeLatency;
extern const Metric kBuildInfo, kCpuSeconds, kResidentBytes, kStartTime, kOpenFds, kMaxFds;

}  // namespace twinroot::obs

#endif  // TWINROOT_DAEMON_OBS_CATALOGUE_H_
