#include "daemon/obs/host_collector.h"

#include <iterator>
#include <limits>
#include <utility>

#include "daemon/obs/family.h"

namespace twinroot::obs {
namespace {

using host::ExitMeter;

constexpr const char* kReasons[] = {"ept_violation", "ept_misconfiguration", "shadow_fault",
                                    "map_gpa"};
static_assert(std::size(kReasons) == ExitMeter::kReasons);
// The alternatives of mmu::FaultOutcome.
constexpr const char* kOutcomes[] = {"fixed",  "spurious", "retry",     "mmio",
                                     "memory", "pending",  "ring_full", "failed"};
static_assert(std::size(kOutcomes) == ExitMeter::kOutcomes);
constexpr double kSecondsPerNanosecond = 1e-9;

void AddHistogram(prometheus::MetricFamily& family, const char* kind, const char* outcome,
                  const ExitMeter::Latency& latency) {
  prometheus::ClientMetric metric;
  metric.label = {{"kind", kind}, {"outcome", outcome}};
  uint64_t count = 0;
  for (size_t i = 0; i < latency.counts.size(); ++i) {
    count += latency.counts[i];
    const double bound = i < ExitMeter::kBounds.size()
                             ? static_cast<double>(ExitMeter::kBounds[i]) * kSecondsPerNanosecond
                             : std::numeric_limits<double>::infinity();
    metric.histogram.bucket.push_back({count, bound});
  }
  metric.histogram.sample_count = count;
  metric.histogram.sample_sum = static_cast<double>(latency.nanoseconds) * kSecondsPerNanosecond;
  // What never happened has no series, but for the usual.
  if (count > 0 || outcome == kOutcomes[0]) family.metric.push_back(std::move(metric));
}

}  // namespace

std::vector<prometheus::MetricFamily> HostCollector::Collect() const {
  std::vector<prometheus::MetricFamily> all;
  auto& exits = all.emplace_back(FamilyOf(kExits));
  for (size_t i = 0; i < std::size(kReasons); ++i) {
    AddSeries(exits, {{"reason", kReasons[i]}},
              static_cast<double>(exits_->exits(static_cast<ExitMeter::Reason>(i))));
  }
  auto& latency = all.emplace_back(FamilyOf(kFaultLatency));
  for (size_t i = 0; i < std::size(kOutcomes); ++i) {
    AddHistogram(latency, "private", kOutcomes[i], exits_->latency(mmu::MemoryKind::kPrivate, i));
    AddHistogram(latency, "shared", kOutcomes[i], exits_->latency(mmu::MemoryKind::kShared, i));
  }
  const events::JournalStats stats = journal_->stats();
  const std::pair<const Metric*, uint64_t> journal[] = {{&kJournalEvents, stats.kept},
                                                        {&kJournalBytes, stats.bytes},
                                                        {&kJournalWaiting, stats.waiting},
                                                        {&kJournalLost, stats.lost},
                                                        {&kJournalFailed, stats.failed_commits}};
  for (const auto& [metric, value] : journal) {
    AddSeries(all.emplace_back(FamilyOf(*metric)), {}, static_cast<double>(value));
  }
  return all;
}

}  // namespace twinroot::obs
