#include "daemon/obs/catalogue.h"

namespace twinroot::obs {
namespace {

const std::pair<std::string_view, std::string_view> kVm = {kVmLabel, ""};
const std::pair<std::string_view, std::string_view> kKind = {"kind", "private shared"};
const std::pair<std::string_view, std::string_view> kDirection = {"direction",
                                                                  "to_shared to_private"};
const std::pair<std::string_view, std::string_view> kCause = {"cause", "implicit explicit api"};
const std::pair<std::string_view, std::string_view> kMethod = {"method", ""};
const std::pair<std::string_view, std::string_view> kCode = {"code", ""};

}  // namespace

const Metric kFaults = {"twinroot_faults_total",
                        Type::Counter,
                        "faults",
                        "EPT violations by what became of them.",
                        {kVm, {"outcome", "fixed spurious retry memory mmio failed"}}};
const Metric kFastFaults = {"twinroot_fast_faults_total",
                            Type::Counter,
                            "faults",
                            "Fixed EPT violations that only gave a withheld right back.",
                            {kVm}};
const Metric kMmioCached = {"twinroot_mmio_cached_total",
                            Type::Counter,
                            "accesses",
                            "Accesses outside memory that a mark in the tables answered.",
                            {kVm}};
const Metric kInvalidations = {
    "twinroot_invalidations_total",
    Type::Counter,
    "changes",
    "Changes that took something away; faults beside them are tried again (outcome retry).",
    {kVm}};
const Metric kLeaves = {"twinroot_leaves",
                        Type::Gauge,
                        "entries",
                        "Leaf entries present now, by page size and root.",
                        {kVm, {"level", "4K 2M 1G"}, kKind}};
const Metric kShadowLeaves = {"twinroot_shadow_leaves",
                              Type::Gauge,
                              "entries",
                              "Leaf entries of shadow tables present now.",
                              {kVm}};
const Metric kShadowPages = {"twinroot_shadow_pages",
                             Type::Gauge,
                             "pages",
                             "Shadow pages; they are table pages, too.",
                             {kVm}};
const Metric kTablePages = {
    "twinroot_table_pages", Type::Gauge, "pages", "Page-table pages in use.", {kVm}};
const Metric kTablePagesBudget = {"twinroot_table_pages_budget",
                                  Type::Gauge,
                                  "pages",
                                  "Page-table pages that the VM may use.",
                                  {kVm}};
const Metric kDetachedTables = {"twinroot_detached_tables",
                                Type::Gauge,
                                "tables",
                                "Tables that wait to be taken down, with all below them.",
                                {kVm}};
const Metric kFlushes = {"twinroot_flushes_total",
                         Type::Counter,
                         "flushes",
                         "TLB flushes.",
                         {kVm, {"scope", "range full"}}};
const Metric kAttributeBytes = {"twinroot_attribute_bytes",
                                Type::Gauge,
                                "bytes",
                                "Guest memory by its attribute.",
                                {kVm, kKind}};
const Metric kAllocatedBytes = {"twinroot_allocated_bytes",
                                Type::Gauge,
                                "bytes",
                                "Host memory behind the guest's memory, by backing.",
                                {kVm, kKind}};
const Metric kSplits = {"twinroot_splits_total",
                        Type::Counter,
                        "pages",
                        "Large pages that were split, by reason.",
                        {kVm, {"reason", "dirty_log request conversion fault"}}};
const Metric kSplitsKept = {"twinroot_splits_kept_total",
                            Type::Counter,
                            "pages",
                            "Large pages that were not split for want of a table.",
                            {kVm}};
const Metric kCollapses = {"twinroot_collapses_total",
                           Type::Counter,
                           "tables",
                           "Tables that became large pages again, by reason.",
                           {kVm, {"reason", "dirty_log attributes nx_recovery"}}};
const Metric kDirtyLogEnabled = {
    "twinroot_dirty_log_enabled", Type::Gauge, "", "1 while the VM's writes are logged.", {kVm}};
const Metric kDirtyPagesHarvested = {"twinroot_dirty_pages_harvested_total",
                                     Type::Counter,
                                     "pages",
                                     "Pages that harvests of the dirty log told of.",
                                     {kVm}};
const Metric kVcpusWaitingForHarvest = {"twinroot_vcpus_waiting_for_harvest",
                                        Type::Gauge,
                                        "vCPUs",
                                        "vCPUs whose dirty ring is full: a harvest lets them go.",
                                        {kVm}};
const Metric kProjectedLeaves = {
    "twinroot_projected_leaves",
    Type::Gauge,
    "leaves",
    "Leaves of 2 MiB of VMs on kvm by how the host maps them: whole, or in pieces.",
    {kVm, {"form", "whole pieces"}}};
const Metric kProjectedLeavesKept = {
    "twinroot_projected_leaves_kept_total",
    Type::Counter,
    "leaves",
    "Times that the host did not make a leaf of 2 MiB, or not in one piece, by reason.",
    {kVm, {"reason", "no_memory dirty_log busy"}}};
const Metric kKvmExits = {"twinroot_kvm_exits_total",
                          Type::Counter,
                          "exits",
                          "Times that vCPUs left the guest, KVM's own reasons included.",
                          {kVm}};

const Metric kConversions = {"twinroot_conversions_total",
                             Type::Counter,
                             "conversions",
                             "Conversions that were decided, one for each event.",
                             {kVm, kDirection, kCause, {"result", "applied denied expired quota"}}};
const Metric kConvertedBytes = {"twinroot_converted_bytes_total",
                                Type::Counter,
                                "bytes",
                                "Bytes of applied conversions.",
                                {kVm, kDirection, kCause}};
const Metric kOverQuota = {"twinroot_conversions_over_quota_total",
                           Type::Counter,
                           "conversions",
                           "Conversions that a quota of the VM's policy refused.",
                           {kVm, {"quota", "shared_bytes rate ping_pong"}}};
const Metric kPending = {
    "twinroot_pending_conversions",
    Type::Gauge,
    "conversions",
    "Conversions that wait for a decision, or for the rate of their VM's policy.",
    {kVm}};
const Metric kThrottled = {"twinroot_throttled_conversions_total",
                           Type::Counter,
                           "requests",
                           "Requests over the rate of their VM's policy, which wait or come again.",
                           {kVm}};
const Metric kHeldBack = {"twinroot_held_back_conversions_total",
                          Type::Counter,
                          "requests",
                          "Requests that waited because a lossless watch was too far behind.",
                          {kVm}};
const Metric kConversionLatency = {"twinroot_conversion_latency_seconds",
                                   Type::Histogram,
                                   "seconds",
                                   "From a conversion's exit (or call) until the vCPU may go on.",
                                   {kCause}};

const Metric kVms = {"twinroot_vms",
                     Type::Gauge,
                     "VMs",
                     "VMs by state.",
                     {{"state", "defined running paused stopped"}}};
const Metric kMaxVms = {"twinroot_max_vms", Type::Gauge, "VMs",
                        "VMs that this host takes at most."};
const Metric kDraining = {"twinroot_draining", Type::Gauge, "",
                          "1 while the host takes no new VMs (hvctl host drain)."};
const Metric kFoldedVms = {"twinroot_folded_vms", Type::Gauge, "VMs",
                           "VMs over max_vm_series, which are added up as vm _other."};
const Metric kBuggedVms = {
    "twinroot_bugged_vms", Type::Gauge, "VMs",
    "VMs that were stopped with ENGINE_BUG: their tables were found broken."};
const Metric kExits = {"twinroot_exits_total",
                       Type::Counter,
                       "exits",
                       "Exits about memory that vCPUs brought to the daemon.",
                       {{"reason", "ept_violation ept_misconfiguration shadow_fault map_gpa"}}};
const Metric kFaultLatency = {
    "twinroot_fault_latency_seconds",
    Type::Histogram,
    "seconds",
    "From an EPT violation's exit until it is answered; a parked vCPU waits beyond it.",
    {kKind, {"outcome", "fixed spurious retry mmio memory pending ring_full failed"}}};

const Metric kJournalEvents = {"twinroot_journal_events", Type::Gauge, "events",
                               "Events kept in the journal."};
const Metric kJournalBytes = {"twinroot_journal_bytes", Type::Gauge, "bytes",
                              "The journal's file, as far as it is in use."};
const Metric kJournalWaiting = {"twinroot_journal_waiting_events", Type::Gauge, "events",
                                "Events that wait for the journal's disk."};
const Metric kJournalLost = {"twinroot_journal_lost_events_total", Type::Counter, "events",
                             "Events that became a gap, because the journal's disk refused them."};
const Metric kJournalFailed = {
    "twinroot_journal_failed_commits_total", Type::Counter, "commits",
    "Times that the journal's disk refused events; they are tried again."};

const Metric kGaps = {"twinroot_event_gaps_total", Type::Counter, "gaps",
                      "Gaps that watches and lists of events were told."};
const Metric kGapEvents = {"twinroot_event_gap_events_total", Type::Counter, "events",
                           "Events that stood where such a gap was told."};

const Metric kCallsStarted = {
    "twinroot_grpc_started_total", Type::Counter, "calls", "gRPC calls that began.", {kMethod}};
const Metric kCallsHandled = {"twinroot_grpc_handled_total",
                              Type::Counter,
                              "calls",
                              "gRPC calls that ended, by code.",
                              {kMethod, kCode}};
const Metric kCallLatency = {"twinroot_grpc_latency_seconds",
                             Type::Histogram,
                             "seconds",
                             "Of gRPC calls with one answer; streams last as long as they last.",
                             {kMethod, kCode}};
const Metric kAuditFailures = {"twinroot_audit_failures_total", Type::Counter, "lines",
                               "Lines that the audit log could not take; they are in the log."};
const Metric kBuildInfo = {"twinroot_build_info",
                           Type::Gauge,
                           "",
                           "1; its labels say which build this is.",
                           {{"version", ""}}};

const Metric kCpuSeconds = {"process_cpu_seconds_total", Type::Counter, "seconds",
                            "User and system CPU time in seconds."};
const Metric kResidentBytes = {"process_resident_memory_bytes", Type::Gauge, "bytes",
                               "Resident memory in bytes."};
const Metric kStartTime = {"process_start_time_seconds", Type::Gauge, "seconds",
                           "When the process started, since the epoch."};
const Metric kOpenFds = {"process_open_fds", Type::Gauge, "files", "Open file descriptors."};
const Metric kMaxFds = {"process_max_fds", Type::Gauge, "files",
                        "File descriptors that may be open."};

const Metric kScrapes = {"exposer_scrapes_total", Type::Counter, "scrapes",
                         "Number of times metrics were scraped"};
const Metric kScrapeBytes = {"exposer_transferred_bytes_total", Type::Counter, "bytes",
                             "Transferred bytes to metrics services"};
const Metric kScrapeLatency = {"exposer_request_latencies", Type::Summary, "microseconds",
                               "Latencies of serving scrape requests, in microseconds"};

const std::vector<Room>& Catalogue() {
  static const std::vector<Room> rooms = {
      {"VMs", {&kVms, &kMaxVms, &kFoldedVms, &kBuggedVms, &kDraining}},
      {"Faults and exits",
       {&kFaults, &kFastFaults, &kFaultLatency, &kExits, &kKvmExits, &kMmioCached,
        &kInvalidations}},
      {"Conversions",
       {&kConversions, &kConvertedBytes, &kConversionLatency, &kPending, &kOverQuota, &kThrottled,
        &kHeldBack}},
      {"Memory",
       {&kAttributeBytes, &kAllocatedBytes, &kLeaves, &kProjectedLeaves, &kProjectedLeavesKept,
        &kShadowLeaves}},
      {"Tables",
       {&kTablePages, &kTablePagesBudget, &kDetachedTables, &kShadowPages, &kFlushes, &kSplits,
        &kSplitsKept, &kCollapses}},
      {"Dirty logging", {&kDirtyLogEnabled, &kDirtyPagesHarvested, &kVcpusWaitingForHarvest}},
      {"Events",
       {&kJournalEvents, &kJournalBytes, &kJournalWaiting, &kJournalLost, &kJournalFailed, &kGaps,
        &kGapEvents}},
      {"Calls", {&kCallsStarted, &kCallsHandled, &kCallLatency, &kAuditFailures}},
      {"The endpoint itself", {&kScrapes, &kScrapeBytes, &kScrapeLatency}},
      {"The process",
       {&kBuildInfo, &kCpuSeconds, &kResidentBytes, &kStartTime, &kOpenFds, &kMaxFds}}};
  return rooms;
}

}  // namespace twinroot::obs
