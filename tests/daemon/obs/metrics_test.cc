#include "daemon/obs/metrics.h"

#include <chrono>
#include <ctime>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "daemon/obs/catalogue.h"
#include "gtest/gtest.h"
#include "tests/daemon/fakes/fake_vm_registry.h"
#include "tests/daemon/obs/scrape.h"

namespace twinroot::obs {
namespace {

v1::Event Conversion(const std::string& vm, v1::Conversion::Direction direction,
                     v1::Conversion::Cause cause, v1::Conversion::Decision decision,
                     uint64_t size) {
  v1::Event event;
  event.set_vm(vm);
  event.mutable_conversion()->set_direction(direction);
  event.mutable_conversion()->set_cause(cause);
  event.mutable_conversion()->set_decision(decision);
  event.mutable_conversion()->set_size(size);
  event.mutable_conversion()->mutable_latency()->set_nanos(60'000);
  return event;
}

constexpr uint32_t kMaxVmSeries = 3;

// Something of everything that the table of series shows.
host::VmCounters EverythingOnce() {
  host::VmCounters all;
  mmu::AddressSpaceStats& memory = all.memory;
  for (uint64_t* count : {&memory.faults_fixed,
                          &memory.faults_spurious,
                          &memory.faults_retry,
                          &memory.faults_mmio,
                          &memory.faults_memory,
                          &memory.faults_failed,
                          &memory.faults_fast,
                          &memory.splits_dirty_log,
                          &memory.splits_request,
                          &memory.splits_conversion,
                          &memory.splits_fault,
                          &memory.splits_kept,
                          &memory.collapses_dirty_log,
                          &memory.collapses_attributes,
                          &memory.collapses_nx,
                          &memory.leaves[0][0],
                          &memory.leaves[0][1],
                          &memory.leaves[0][2],
                          &memory.leaves[1][0],
                          &memory.leaves[1][1],
                          &memory.leaves[1][2],
                          &memory.table_pages,
                          &memory.table_pages_budget,
                          &memory.shadow_pages,
                          &memory.shadow_leaves,
                          &memory.flushes_range,
                          &memory.flushes_full,
                          &memory.invalidations,
                          &memory.detached_tables,
                          &memory.mmio_cached,
                          &all.private_bytes_allocated,
                          &all.shared_bytes_allocated,
                          &all.held_back_conversions,
                          &all.throttled_conversions,
                          &all.dirty_pages_harvested,
                          &all.projection.whole,
                          &all.projection.pieces,
                          &all.projection.kept_no_memory,
                          &all.projection.kept_busy,
                          &all.projection.kept_writes_watched,
                          &all.kvm_exits}) {
    *count = 1;
  }
  memory.private_frames_attribute = memory.shared_frames_attribute = 1;
  all.dirty_log_enabled = true;
  all.vcpus_waiting_for_harvest = 1;
  return all;
}

class MetricsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(metrics_.Expose("127.0.0.1:0").ok());
    metrics_.Watch(&registry_);
  }

  fakes::FakeVm& Make(const std::string& name) {
    host::VmSpec spec;
    spec.name = name;
    spec.memory_bytes = uint64_t{2} << 20;
    EXPECT_TRUE(registry_.Create(std::move(spec)).ok());
    return registry_.vm(name);
  }
  std::string Scraped() { return Scrape(metrics_.address()); }

  events::Journal journal_;
  fakes::FakeVmRegistry registry_{&journal_};
  Metrics metrics_{&journal_, "1.2.3", kMaxVmSeries};
};

TEST_F(MetricsTest, PortZeroTakesAFreePortAndSaysWhich) {
  EXPECT_TRUE(absl::StartsWith(metrics_.address(), "127.0.0.1:"));
  EXPECT_NE(metrics_.address(), "127.0.0.1:0");
  EXPECT_TRUE(absl::StrContains(Scraped(), "200 OK"));
}

TEST_F(MetricsTest, AddressThatIsTakenIsAnErrorThatNamesTheFlag) {
  events::Journal journal;
  Metrics second(&journal, "1", 0);
  const absl::Status status = second.Expose(metrics_.address());
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(absl::StrContains(status.message(), "--metrics-address"));
  EXPECT_TRUE(absl::StrContains(status.message(), metrics_.address()));
  EXPECT_TRUE(second.address().empty());
}

TEST_F(MetricsTest, LinesThatTheAuditLogCouldNotTakeAreCountedFromZeroOn) {
  EXPECT_EQ(ValueOf(Scraped(), "twinroot_audit_failures_total"), 0);
  const auto count = metrics_.AuditFailureCounter();
  count();
  count();
  EXPECT_EQ(ValueOf(Scraped(), "twinroot_audit_failures_total"), 2);
}

TEST_F(MetricsTest, GapsAreCountedWithTheEventsThatStoodThere) {
  EXPECT_EQ(ValueOf(Scraped(), "twinroot_event_gaps_total"), 0);
  const auto count = metrics_.GapCounter();
  count(7);
  count(1);
  const std::string scrape = Scraped();
  EXPECT_EQ(ValueOf(scrape, "twinroot_event_gaps_total"), 2);
  EXPECT_EQ(ValueOf(scrape, "twinroot_event_gap_events_total"), 8);
}

TEST_F(MetricsTest, AHostThatDrainsShowsIt) {
  metrics_.SetMaxVms(4096);
  EXPECT_EQ(ValueOf(Scraped(), "twinroot_max_vms"), 4096);
  EXPECT_EQ(ValueOf(Scraped(), "twinroot_draining"), 0);
  const auto drain = metrics_.DrainingGauge();
  drain(true);
  EXPECT_EQ(ValueOf(Scraped(), "twinroot_draining"), 1);
  drain(false);
  EXPECT_EQ(ValueOf(Scraped(), "twinroot_draining"), 0);
}

TEST_F(MetricsTest, ConversionsAreCountedAsTheEventsTell) {
  using C = v1::Conversion;
  for (int i = 0; i < 3; ++i) {
    journal_.Append(
        Conversion("demo", C::DIRECTION_TO_SHARED, C::CAUSE_IMPLICIT, C::DECISION_APPLIED, 4096));
  }
  journal_.Append(
      Conversion("demo", C::DIRECTION_TO_PRIVATE, C::CAUSE_EXPLICIT, C::DECISION_DENIED, 4096));
  journal_.Append(
      Conversion("demo", C::DIRECTION_TO_PRIVATE, C::CAUSE_EXPLICIT, C::DECISION_EXPIRED, 4096));
  v1::Event refused =
      Conversion("demo", C::DIRECTION_TO_SHARED, C::CAUSE_EXPLICIT, C::DECISION_QUOTA, 4096);
  refused.mutable_conversion()->set_quota(C::QUOTA_PING_PONG);
  journal_.Append(refused);
  const std::string scrape = Scraped();
  EXPECT_EQ(ValueOf(scrape,
                    "twinroot_conversions_total{vm=\"demo\",direction=\"to_shared\","
                    "cause=\"implicit\",result=\"applied\"}"),
            3);
  EXPECT_EQ(ValueOf(scrape,
                    "twinroot_conversions_total{vm=\"demo\",direction=\"to_private\","
                    "cause=\"explicit\",result=\"denied\"}"),
            1);
  EXPECT_EQ(ValueOf(scrape,
                    "twinroot_conversions_total{vm=\"demo\",direction=\"to_private\","
                    "cause=\"explicit\",result=\"expired\"}"),
            1);
  EXPECT_EQ(ValueOf(scrape,
                    "twinroot_conversions_total{vm=\"demo\",direction=\"to_shared\","
                    "cause=\"explicit\",result=\"quota\"}"),
            1);
  EXPECT_EQ(
      ValueOf(scrape, "twinroot_conversions_over_quota_total{vm=\"demo\",quota=\"ping_pong\"}"), 1);
  EXPECT_EQ(ValueOf(scrape,
                    "twinroot_converted_bytes_total{vm=\"demo\",direction=\"to_shared\","
                    "cause=\"implicit\"}"),
            3 * 4096);
  // Only what was applied has bytes.
  EXPECT_EQ(ValueOf(scrape,
                    "twinroot_converted_bytes_total{vm=\"demo\",direction=\"to_private\","
                    "cause=\"explicit\"}"),
            -1);
  const std::string latency = "twinroot_conversion_latency_seconds_";
  EXPECT_EQ(ValueOf(scrape, latency + "count{cause=\"implicit\"}"), 3);
  EXPECT_EQ(ValueOf(scrape, latency + "count{cause=\"explicit\"}"), 3);
  EXPECT_EQ(ValueOf(scrape, latency + "count{cause=\"api\"}"), 0);
  EXPECT_EQ(ValueOf(scrape, latency + "bucket{cause=\"implicit\",le=\"5e-05\"}"), 0);
  EXPECT_EQ(ValueOf(scrape, latency + "bucket{cause=\"implicit\",le=\"0.0001\"}"), 3);
  EXPECT_EQ(ValueOf(scrape, "twinroot_journal_events"), 6);
  EXPECT_EQ(ValueOf(scrape, "twinroot_journal_waiting_events"), 0);
  EXPECT_EQ(ValueOf(scrape, "twinroot_journal_bytes"), 0);
  EXPECT_EQ(ValueOf(scrape, "twinroot_journal_lost_events_total"), 0);
  EXPECT_EQ(ValueOf(scrape, "twinroot_journal_failed_commits_total"), 0);
}

TEST_F(MetricsTest, CountersOfAVmAreShownAsItGivesThem) {
  host::VmCounters counters;
  counters.memory.faults_fixed = 11;
  counters.memory.faults_memory = 12;
  counters.memory.leaves[1][0] = 13;
  counters.memory.leaves[0][1] = 14;
  counters.memory.table_pages = 15;
  counters.memory.table_pages_budget = 16;
  counters.memory.flushes_range = 17;
  counters.memory.flushes_full = 18;
  counters.memory.shared_frames_attribute = 3;
  counters.private_bytes_allocated = 19;
  fakes::FakeVm& vm = Make("demo");
  vm.SetCounters(counters);
  vm.AskToConvert(0, 4096, host::Direction::kToShared);
  const std::string scrape = Scraped();
  EXPECT_EQ(ValueOf(scrape, "twinroot_faults_total{vm=\"demo\",outcome=\"fixed\"}"), 11);
  EXPECT_EQ(ValueOf(scrape, "twinroot_faults_total{vm=\"demo\",outcome=\"memory\"}"), 12);
  EXPECT_EQ(ValueOf(scrape, "twinroot_leaves{vm=\"demo\",level=\"4K\",kind=\"shared\"}"), 13);
  EXPECT_EQ(ValueOf(scrape, "twinroot_leaves{vm=\"demo\",level=\"2M\",kind=\"private\"}"), 14);
  EXPECT_EQ(ValueOf(scrape, "twinroot_table_pages{vm=\"demo\"}"), 15);
  EXPECT_EQ(ValueOf(scrape, "twinroot_table_pages_budget{vm=\"demo\"}"), 16);
  EXPECT_EQ(ValueOf(scrape, "twinroot_flushes_total{vm=\"demo\",scope=\"range\"}"), 17);
  EXPECT_EQ(ValueOf(scrape, "twinroot_flushes_total{vm=\"demo\",scope=\"full\"}"), 18);
  EXPECT_EQ(ValueOf(scrape, "twinroot_attribute_bytes{vm=\"demo\",kind=\"shared\"}"), 3 * 4096);
  EXPECT_EQ(ValueOf(scrape, "twinroot_allocated_bytes{vm=\"demo\",kind=\"private\"}"), 19);
  EXPECT_EQ(ValueOf(scrape, "twinroot_pending_conversions{vm=\"demo\"}"), 1);
}

TEST_F(MetricsTest, VmsAreCountedByState) {
  Make("a");
  Make("b").ExitWith(0);
  ASSERT_TRUE(Make("c").Start().ok());
  const std::string scrape = Scraped();
  EXPECT_EQ(ValueOf(scrape, "twinroot_vms{state=\"defined\"}"), 1);
  EXPECT_EQ(ValueOf(scrape, "twinroot_vms{state=\"running\"}"), 1);
  EXPECT_EQ(ValueOf(scrape, "twinroot_vms{state=\"paused\"}"), 0);
  EXPECT_EQ(ValueOf(scrape, "twinroot_vms{state=\"stopped\"}"), 1);
}

TEST_F(MetricsTest, SeriesVanishWithTheVm) {
  Make("demo");
  Make("other");
  ASSERT_TRUE(registry_.vm("demo")
                  .Convert({{mmu::Gfn(0), 1}}, mmu::MemoryKind::kShared, mmu::Content::kDestroy)
                  .ok());
  EXPECT_TRUE(absl::StrContains(Scraped(), "twinroot_conversions_total{vm=\"demo\""));
  ASSERT_TRUE(registry_.Delete("demo").ok());
  const std::string scrape = Scraped();
  EXPECT_FALSE(absl::StrContains(scrape, "vm=\"demo\""));
  EXPECT_TRUE(absl::StrContains(scrape, "vm=\"other\""));
}

TEST_F(MetricsTest, RareThingsHaveASeriesOnceTheyHappened) {
  fakes::FakeVm& vm = Make("demo");
  EXPECT_EQ(ValueOf(Scraped(), "twinroot_splits_total{vm=\"demo\",reason=\"dirty_log\"}"), -1);
  host::VmCounters counters;
  counters.memory.faults_failed = 1;
  counters.memory.faults_fast = 2;
  counters.memory.splits_dirty_log = 3;
  counters.memory.splits_conversion = 4;
  counters.memory.splits_kept = 5;
  counters.memory.collapses_attributes = 6;
  counters.dirty_pages_harvested = 7;
  vm.SetCounters(counters);
  const std::string scrape = Scraped();
  EXPECT_EQ(ValueOf(scrape, "twinroot_faults_total{vm=\"demo\",outcome=\"failed\"}"), 1);
  EXPECT_EQ(ValueOf(scrape, "twinroot_faults_total{vm=\"demo\",outcome=\"mmio\"}"), -1);
  EXPECT_EQ(ValueOf(scrape, "twinroot_fast_faults_total{vm=\"demo\"}"), 2);
  EXPECT_EQ(ValueOf(scrape, "twinroot_splits_total{vm=\"demo\",reason=\"dirty_log\"}"), 3);
  EXPECT_EQ(ValueOf(scrape, "twinroot_splits_total{vm=\"demo\",reason=\"conversion\"}"), 4);
  EXPECT_EQ(ValueOf(scrape, "twinroot_splits_total{vm=\"demo\",reason=\"request\"}"), -1);
  EXPECT_EQ(ValueOf(scrape, "twinroot_splits_kept_total{vm=\"demo\"}"), 5);
  EXPECT_EQ(ValueOf(scrape, "twinroot_collapses_total{vm=\"demo\",reason=\"attributes\"}"), 6);
  EXPECT_EQ(ValueOf(scrape, "twinroot_dirty_pages_harvested_total{vm=\"demo\"}"), 7);
}

TEST_F(MetricsTest, AnIdleVmHasSeventeenSeriesBesidesItsConversions) {
  Make("demo");
  const std::string scrape = Scraped();
  int series = 0;
  for (absl::string_view line : absl::StrSplit(scrape, '\n')) {
    series += absl::StrContains(line, "vm=\"demo\"");
  }
  EXPECT_EQ(series, 17);
}

TEST_F(MetricsTest, VmsBeyondTheLimitAreAddedUpAsOther) {
  host::VmCounters counters;
  counters.memory.faults_fixed = 5;
  counters.memory.table_pages = 7;
  for (const char* name : {"a", "b", "c", "d", "e"}) Make(name).SetCounters(counters);
  for (const char* name : {"c", "d", "e"}) {
    ASSERT_TRUE(registry_.vm(name)
                    .Convert({{mmu::Gfn(0), 1}}, mmu::MemoryKind::kShared, mmu::Content::kDestroy)
                    .ok());
  }
  const std::string scrape = Scraped();
  const std::string other = "twinroot_faults_total{vm=\"_other\",outcome=\"fixed\"}";
  EXPECT_EQ(ValueOf(scrape, "twinroot_faults_total{vm=\"c\",outcome=\"fixed\"}"), 5);
  EXPECT_FALSE(absl::StrContains(scrape, "vm=\"d\""));
  EXPECT_EQ(ValueOf(scrape, other), 10);
  EXPECT_EQ(ValueOf(scrape, "twinroot_table_pages{vm=\"_other\"}"), 14);
  EXPECT_EQ(ValueOf(scrape, "twinroot_folded_vms"), 2);
  EXPECT_EQ(ValueOf(scrape,
                    "twinroot_conversions_total{vm=\"_other\",direction=\"to_shared\","
                    "cause=\"api\",result=\"applied\"}"),
            2);
}

TEST_F(MetricsTest, VmsWithBrokenTablesAreCountedAsLongAsTheyAreThere) {
  for (const char* name : {"a", "b", "c", "d"}) Make(name);
  EXPECT_EQ(ValueOf(Scraped(), "twinroot_bugged_vms"), 0);
  for (const char* name : {"a", "d"}) {  // d is in _other
    ASSERT_TRUE(registry_.vm(name).Stop(vcpu::StopReason::kEngineBug).ok());
  }
  ASSERT_TRUE(registry_.vm("b").Stop(vcpu::StopReason::kStopRequested).ok());
  EXPECT_EQ(ValueOf(Scraped(), "twinroot_bugged_vms"), 2);
  ASSERT_TRUE(registry_.Delete("a").ok());
  EXPECT_EQ(ValueOf(Scraped(), "twinroot_bugged_vms"), 1);
}

TEST_F(MetricsTest, CountersOfOtherNeverFall) {
  host::VmCounters counters;
  counters.memory.faults_fixed = 5;
  counters.memory.table_pages = 7;
  for (const char* name : {"a", "b", "c", "d", "e"}) Make(name).SetCounters(counters);
  const std::string other = "twinroot_faults_total{vm=\"_other\",outcome=\"fixed\"}";
  EXPECT_EQ(ValueOf(Scraped(), other), 10);
  ASSERT_TRUE(registry_.Delete("d").ok());
  std::string scrape = Scraped();
  EXPECT_EQ(ValueOf(scrape, other), 10);
  EXPECT_EQ(ValueOf(scrape, "twinroot_table_pages{vm=\"_other\"}"), 7);
  // Another VM of the same name begins from nothing.
  Make("d");
  EXPECT_EQ(ValueOf(Scraped(), other), 10);
  registry_.vm("d").SetCounters(counters);
  EXPECT_EQ(ValueOf(Scraped(), other), 15);
  // A place that is free goes to the next VM, not to one that was folded.
  ASSERT_TRUE(registry_.Delete("a").ok());
  Make("f").SetCounters(counters);
  scrape = Scraped();
  EXPECT_EQ(ValueOf(scrape, "twinroot_faults_total{vm=\"f\",outcome=\"fixed\"}"), 5);
  EXPECT_EQ(ValueOf(scrape, other), 15);
  for (const char* name : {"d", "e"}) ASSERT_TRUE(registry_.Delete(name).ok());
  scrape = Scraped();
  EXPECT_EQ(ValueOf(scrape, other), 15);
  EXPECT_EQ(ValueOf(scrape, "twinroot_folded_vms"), 0);
}

TEST_F(MetricsTest, ExitsAndFaultsAreCountedByWhatBecameOfThem) {
  host::ExitMeter& exits = *metrics_.exits();
  exits.CountExit(host::ExitMeter::Reason::kMapGpa);
  exits.CountFault(mmu::MemoryKind::kShared, mmu::FaultOutcome(mmu::Retry{}).index(),
                   std::chrono::microseconds(3));
  const std::string scrape = Scraped();
  EXPECT_EQ(ValueOf(scrape, "twinroot_exits_total{reason=\"map_gpa\"}"), 1);
  EXPECT_EQ(ValueOf(scrape, "twinroot_exits_total{reason=\"ept_violation\"}"), 1);
  const std::string latency = "twinroot_fault_latency_seconds_";
  const std::string labels = "{kind=\"shared\",outcome=\"retry\"";
  EXPECT_EQ(ValueOf(scrape, latency + "bucket" + labels + ",le=\"2.5e-06\"}"), 0);
  EXPECT_EQ(ValueOf(scrape, latency + "bucket" + labels + ",le=\"5e-06\"}"), 1);
  EXPECT_EQ(ValueOf(scrape, latency + "bucket" + labels + ",le=\"+Inf\"}"), 1);
  EXPECT_EQ(ValueOf(scrape, latency + "count" + labels + "}"), 1);
  EXPECT_EQ(ValueOf(scrape, latency + "sum" + labels + "}"), 3e-6);
  EXPECT_FALSE(absl::StrContains(scrape, "outcome=\"ring_full\""));
}

// What the document says of labels holds, and no metric is forgotten by those that collect.
TEST_F(MetricsTest, EveryMetricOfTheCatalogueIsServedWithItsLabelsAndNoOther) {
  using C = v1::Conversion;
  fakes::FakeVm& vm = Make("demo");
  vm.SetCounters(EverythingOnce());
  vm.AskToConvert(0, 4096, host::Direction::kToShared);
  journal_.Append(
      Conversion("demo", C::DIRECTION_TO_SHARED, C::CAUSE_IMPLICIT, C::DECISION_APPLIED, 4096));
  v1::Event refused =
      Conversion("demo", C::DIRECTION_TO_SHARED, C::CAUSE_EXPLICIT, C::DECISION_QUOTA, 4096);
  refused.mutable_conversion()->set_quota(C::QUOTA_RATE);
  journal_.Append(refused);

  std::map<std::string, std::set<std::string>> served;  // of each metric, its labels
  for (absl::string_view line : absl::StrSplit(metrics_.Text(), '\n', absl::SkipEmpty())) {
    if (line.front() == '#') continue;
    std::string name(line.substr(0, line.find_first_of("{ ")));
    for (const char* part : {"_bucket", "_count", "_sum"}) {
      if (absl::EndsWith(name, std::string("_seconds") + part)) name.resize(name.rfind('_'));
    }
    std::set<std::string>& labels = served[name];
    for (absl::string_view rest = line; rest.find("=\"") != rest.npos;) {
      const size_t end = rest.find("=\"");
      const size_t begin = rest.find_last_of("{,", end) + 1;
      if (rest.substr(begin, end - begin) != "le") labels.emplace(rest.substr(begin, end - begin));
      rest.remove_prefix(rest.find('"', end + 2));
    }
  }
  size_t known = 0;
  for (const Room& room : Catalogue()) {
    for (const Metric* metric : room.metrics) {
      const std::string name(metric->name);
      // Seen by //tests/deploy/prometheus:live_test.
      if (absl::StartsWith(name, "twinroot_grpc_") || absl::StartsWith(name, "exposer_")) continue;
      ++known;
      std::set<std::string> labels;
      for (const auto& [label, values] : metric->labels) labels.emplace(label);
      ASSERT_TRUE(served.contains(name)) << name;
      EXPECT_EQ(served[name], labels) << name;
    }
  }
  EXPECT_EQ(served.size(), known);
}

TEST_F(MetricsTest, ProcessAndBuildAreShown) {
  const std::string scrape = Scraped();
  EXPECT_EQ(ValueOf(scrape, "twinroot_build_info{version=\"1.2.3\"}"), 1);
  const double now = static_cast<double>(time(nullptr));
  const double start = ValueOf(scrape, "process_start_time_seconds");
  EXPECT_GT(start, now - 3600);
  EXPECT_LT(start, now + 60);
  EXPECT_GT(ValueOf(scrape, "process_resident_memory_bytes"), 1 << 20);
  EXPECT_GT(ValueOf(scrape, "process_open_fds"), 3);
  EXPECT_GE(ValueOf(scrape, "process_max_fds"), ValueOf(scrape, "process_open_fds"));
  EXPECT_GE(ValueOf(scrape, "process_cpu_seconds_total"), 0);
}

}  // namespace
}  // namespace twinroot::obs
