#include "cli/vm_rates.h"

#include <gtest/gtest.h>

namespace twinroot::cli {
namespace {

constexpr char kPage[] = R"(# HELP twinroot_conversions_total Conversions.
# TYPE twinroot_conversions_total counter
twinroot_conversions_total{vm="a",direction="to_shared",cause="implicit",result="applied"} 3
twinroot_conversions_total{vm="a",direction="to_private",cause="explicit",result="denied"} 4
twinroot_faults_total{vm="a",outcome="fixed"} 100
twinroot_faults_total{vm="b",outcome="retry"} 1e+06
twinroot_splits_total{vm="a",reason="conversion"} 2
twinroot_dirty_pages_harvested_total{vm="a"} 5
twinroot_attribute_bytes{vm="a",kind="private"} 8192
twinroot_attribute_bytes{vm="a",kind="shared"} 4096
twinroot_allocated_bytes{vm="a",kind="private"} 4096
twinroot_allocated_bytes{vm="a",kind="shared"} 4096
twinroot_pending_conversions{vm="a"} 1
twinroot_vms{state="running"} 2
twinroot_build_info{version="0.1.0"} 1
process_cpu_seconds_total 12
twinroot_faults_total{vm="a",outcome="cut)";

TEST(VmRates, SumTheSeriesOfEachVm) {
  const auto vms = ReadVmCounts(kPage);
  ASSERT_EQ(vms.size(), 2u);
  const VmCounts& a = vms.at("a");
  EXPECT_EQ(a.conversions, 7);
  EXPECT_EQ(a.faults, 100);
  EXPECT_EQ(a.splits, 2);
  EXPECT_EQ(a.dirty_bytes, 5 * 4096);
  EXPECT_EQ(a.shared_bytes, 4096);
  EXPECT_EQ(a.allocated_bytes, 8192);
  EXPECT_EQ(a.waiting, 1);
  EXPECT_EQ(vms.at("b").faults, 1e6);
}

TEST(VmRates, AreDifferencesForEachSecond) {
  VmCounts before, now;
  before.conversions = 10;
  now.conversions = 30;
  now.shared_bytes = 5;
  const VmCounts rates = RatesOf(before, now, 4);
  EXPECT_EQ(rates.conversions, 5);
  EXPECT_EQ(rates.shared_bytes, 5);
}

TEST(VmRates, BeginAnewWithANewVmOfTheSameName) {
  VmCounts before, now;
  before.faults = 1000;
  now.faults = 6;
  EXPECT_EQ(RatesOf(before, now, 2).faults, 3);
  EXPECT_EQ(RatesOf(before, now, 0).faults, 0);
}

}  // namespace
}  // namespace twinroot::cli
