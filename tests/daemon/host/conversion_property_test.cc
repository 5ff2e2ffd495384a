// Random vCPUs against random orchestrators: every request ends, each range of it once; the events,
// replayed in order, give the memory as it is; and the metrics count the same.
#include <atomic>
#include <map>
#include <random>
#include <set>

#include "daemon/obs/conversion_metrics.h"
#include "gmock/gmock.h"
#include "prometheus/registry.h"
#include "tests/daemon/host/desk_fixture.h"

namespace twinroot::host {
namespace {

using mmu::Frames;
using mmu::MemoryKind;
using vcpu::MapGpaResult;
using vcpu::Verdict;

constexpr uint64_t kFrames = 2048;
constexpr uint32_t kVcpus = 3;
constexpr int kSteps = 150;  // of each vCPU

struct Case {
  const char* name;
  ConversionPolicy policy;
};

ConversionPolicy WithQuotas(ConversionPolicy policy) {
  policy.max_shared_bytes = kFrames / 2 * mmu::kPageSize;
  policy.max_conversions_per_second = 5000;
  policy.conversion_burst = 20;
  policy.ping_pong_limit = 40;
  policy.ping_pong_window = absl::Milliseconds(20);
  return policy;
}

ConversionPolicy Impatient(OnTimeout on_timeout) {
  ConversionPolicy policy = Orchestrated(absl::Milliseconds(5));
  policy.on_timeout = on_timeout;
  return policy;
}

class ConversionPropertyTest : public DeskFixture, public testing::WithParamInterface<Case> {
 protected:
  using Random = std::mt19937_64;

  MemoryKind AnyKind(Random& random) {
    return random() % 2 ? MemoryKind::kShared : MemoryKind::kPrivate;
  }
  mmu::GfnRange AnyRange(Random& random) {
    const uint64_t first = random() % kFrames;
    const uint64_t most = random() % 4 == 0 ? kFrames : 8;
    return Frames(first, 1 + random() % std::min(most, kFrames - first));
  }

  // One vCPU: a denied access ends a real VM; here the vCPU just does something else.
  void RunVcpu(DeskVm& vm, vcpu::VcpuIndex vcpu, uint64_t seed) {
    Random random(seed);
    for (int step = 0; step < kSteps; ++step) {
      if (random() % 2 == 0) {
        const uint64_t gfn = random() % 64 * 32;
        const int before = vm.resumed(vcpu);
        if (vm.Access(vcpu, gfn, AnyKind(random)) == Verdict::kParked) {
          // Resumed, or refused: then nothing waits any more that it could wait for.
          Eventually([&] { return vm.resumed(vcpu) > before || !Waits(vm, gfn); });
        }
        continue;
      }
      mmu::GfnRange range = AnyRange(random);
      const uint64_t attributes =
          (random() % 2 ? kMapPrivateBit : 0) | (random() % 4 == 0 ? kMapPreserveBit : 0);
      while (!range.empty()) {
        const vcpu::MapGpaVerdict verdict =
            vm.MapGpa(vcpu, range.first.value, range.count, attributes);
        std::optional<vcpu::MapGpaAnswer> answer = verdict.answer;
        if (verdict.verdict == Verdict::kParked) answer = vm.WaitAnswer(vcpu);
        ASSERT_TRUE(answer.has_value()) << "a parked vCPU was forgotten";
        if (answer->result != MapGpaResult::kRetry || random() % 20 == 0) break;
        const mmu::Gfn next(answer->next_gpa >> mmu::kPageShift);
        range = {next, range.end() - next};
      }
    }
  }
  static bool Waits(DeskVm& vm, uint64_t gfn) {
    for (const PendingConversion& pending : vm.desk().Pending()) {
      if (pending.cause == Cause::kImplicit && pending.gpa == gfn << mmu::kPageShift) return true;
    }
    return false;
  }

  void RunOrchestrator(DeskVm& vm, uint64_t seed, const std::atomic<bool>& stop) {
    Random random(seed);
    while (!stop) {
      for (const PendingConversion& pending : vm.desk().Pending()) {
        switch (random() % 5) {
          case 0:
            vm.desk().Resolve(pending.id, Resolution::kDeny);
            break;
          case 1:
            break;  // ignored: the deadline decides
          default:
            vm.desk().Resolve(pending.id, Resolution::kApply);
        }
        if (random() % 4 == 0) {
          EXPECT_NE(vm.desk().Resolve(pending.id, Resolution::kApply).outcome,
                    ResolveResult::Outcome::kUnknown);
        }
      }
      if (random() % 8 == 0) {
        ASSERT_TRUE(vm.desk().Api({.ranges = {AnyRange(random)}, .kind = AnyKind(random)}).ok());
      }
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 500));
    }
  }

  void CheckEvents(DeskVm& vm);
};

void ConversionPropertyTest::CheckEvents(DeskVm& vm) {
  std::vector<MemoryKind> kinds(kFrames, MemoryKind::kPrivate);
  std::map<uint64_t, std::vector<mmu::GfnRange>> ranges;  // of each request
  std::map<uint64_t, uint64_t> asked;
  for (const v1::Event& event : Events()) {
    if (event.has_conversion_requested()) {
      const v1::ConversionRequest& request = event.conversion_requested();
      EXPECT_FALSE(ranges.contains(request.id())) << "told before it was asked";
      EXPECT_EQ(++asked[request.id()], 1u);
    }
    if (!event.has_conversion()) continue;
    const v1::Conversion& c = event.conversion();
    const mmu::GfnRange range = Frames(c.gpa() >> mmu::kPageShift, c.size() >> mmu::kPageShift);
    for (const mmu::GfnRange& other : ranges[c.id()]) {
      EXPECT_FALSE(!range.empty() && !other.empty() && range.Overlaps(other))
          << "twice: " << c.ShortDebugString();
    }
    ranges[c.id()].push_back(range);
    EXPECT_EQ(c.decision() == v1::Conversion::DECISION_QUOTA,
              c.quota() != v1::Conversion::QUOTA_UNSPECIFIED);
    if (c.decision() != v1::Conversion::DECISION_APPLIED) continue;
    const MemoryKind kind = c.direction() == v1::Conversion::DIRECTION_TO_SHARED
                                ? MemoryKind::kShared
                                : MemoryKind::kPrivate;
    for (mmu::Gfn gfn = range.first; gfn < range.end(); gfn = gfn + 1) {
      EXPECT_NE(kinds[gfn.value], kind) << "converted to what it was: " << c.ShortDebugString();
      kinds[gfn.value] = kind;
    }
  }
  for (const auto& [id, count] : asked) EXPECT_TRUE(ranges.contains(id)) << id << " has no end";
  for (uint64_t gfn = 0; gfn < kFrames; ++gfn) {
    ASSERT_TRUE(IsAll(vm.engine(), Frames(gfn, 1), kinds[gfn])) << gfn;
  }
}

TEST_P(ConversionPropertyTest, EveryRequestEndsAndEventsTellTheWholeTruth) {
  prometheus::Registry registry;
  auto& latency = prometheus::BuildHistogram().Name("latency").Register(registry);
  obs::VmLabels labels(1);
  obs::ConversionMetrics metrics(&latency, {1}, &labels);
  journal_.SetObserver([&metrics](const v1::Event& event) { metrics.Observe(event); });
  DeskVm& vm = Make(GetParam().policy);
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    std::atomic<bool> stop{false};
    std::vector<std::thread> vcpus;
    for (uint32_t vcpu = 0; vcpu < kVcpus; ++vcpu) {
      vcpus.emplace_back([&, vcpu] { RunVcpu(vm, vcpu, seed * 100 + vcpu); });
    }
    std::thread orchestrator([&] { RunOrchestrator(vm, seed, stop); });
    for (std::thread& thread : vcpus) thread.join();
    stop = true;
    orchestrator.join();
  }
  // One is left waiting: the stop is its end.
  if (GetParam().policy.mode == PolicyMode::kOrchestrator) (void)vm.MapGpa(0, 0, 1);
  vm.desk().Close(ConversionDesk::Closing::kStopped);
  EXPECT_TRUE(vm.desk().Pending().empty());
  EXPECT_TRUE(vm.engine().Audit().ok()) << vm.engine().Audit();
  CheckEvents(vm);

  std::map<std::string, double> sums;
  for (const prometheus::MetricFamily& family : metrics.Collect()) {
    for (const prometheus::ClientMetric& metric : family.metric) {
      sums[family.name] += metric.counter.value;
    }
  }
  double applied_bytes = 0, over_quota = 0;
  for (const v1::Conversion& c : Conversions()) {
    if (c.decision() == v1::Conversion::DECISION_APPLIED) applied_bytes += c.size();
    if (c.decision() == v1::Conversion::DECISION_QUOTA) ++over_quota;
  }
  EXPECT_EQ(sums["twinroot_conversions_total"], Conversions().size());
  EXPECT_EQ(sums["twinroot_converted_bytes_total"], applied_bytes);
  EXPECT_EQ(sums["twinroot_conversions_over_quota_total"], over_quota);
  EXPECT_GT(Conversions().size(), 100u);
  EXPECT_EQ(over_quota > 0, GetParam().policy.max_shared_bytes > 0);
  journal_.SetObserver(nullptr);
}

INSTANTIATE_TEST_SUITE_P(
    Policies, ConversionPropertyTest,
    testing::Values(Case{"Auto", {}}, Case{"AutoWithQuotas", WithQuotas({})},
                    Case{"Orchestrated", Impatient(OnTimeout::kDeny)},
                    Case{"OrchestratedThatApplies", Impatient(OnTimeout::kApply)},
                    Case{"OrchestratedWithQuotas", WithQuotas(Impatient(OnTimeout::kApply))}),
    [](const testing::TestParamInfo<Case>& info) { return info.param.name; });

}  // namespace
}  // namespace twinroot::host
