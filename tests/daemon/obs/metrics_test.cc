#include "daemon/obs/metrics.h"

#include <ctime>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
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
  Metrics metrics_{&journal_, "1.2.3"};
};

TEST_F(MetricsTest, PortZeroTakesAFreePortAndSaysWhich) {
  EXPECT_TRUE(absl::StartsWith(metrics_.address(), "127.0.0.1:"));
  EXPECT_NE(metrics_.address(), "127.0.0.1:0");
  EXPECT_TRUE(absl::StrContains(Scraped(), "200 OK"));
}

TEST_F(MetricsTest, AddressThatIsTakenIsAnErrorThatNamesTheFlag) {
  events::Journal journal;
  Metrics second(&journal, "1");
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
