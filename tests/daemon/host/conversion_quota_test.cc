// What a guest may ask for, and what it meets beyond.
#include "daemon/host/conversion_quota.h"

#include "gmock/gmock.h"
#include "tests/daemon/host/desk_fixture.h"

namespace twinroot::host {
namespace {

using mmu::Frames;
using mmu::MemoryKind;
using testing::HasSubstr;
using vcpu::MapGpaResult;
using vcpu::StopReason;
using vcpu::Verdict;

const absl::Time kBegin = absl::FromUnixSeconds(1'000'000);

TEST(ConversionQuotaTest, ABurstIsFreeAndThenTokensComeAtTheRate) {
  ConversionPolicy policy;
  policy.max_conversions_per_second = 10;
  policy.conversion_burst = 3;
  ConversionQuota quota(policy);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(quota.NextTurn(kBegin), kBegin);
    quota.Take(kBegin);
  }
  EXPECT_EQ(quota.NextTurn(kBegin), kBegin + absl::Milliseconds(100));
  quota.Take(kBegin);  // in advance
  EXPECT_EQ(quota.NextTurn(kBegin), kBegin + absl::Milliseconds(200));
  // After a pause the burst is full again, and not more than full.
  const absl::Time later = kBegin + absl::Seconds(100);
  for (int i = 0; i < 3; ++i) quota.Take(later);
  EXPECT_GT(quota.NextTurn(later), later);
}

TEST(ConversionQuotaTest, WithoutARateEveryTurnIsNow) {
  ConversionQuota quota({});
  for (int i = 0; i < 1000; ++i) quota.Take(kBegin);
  EXPECT_EQ(quota.NextTurn(kBegin), kBegin);
}

TEST(ConversionQuotaTest, TurnsAreCountedForEach2MiBInAWindow) {
  ConversionPolicy policy;
  policy.ping_pong_limit = 2;
  policy.ping_pong_window = absl::Seconds(1);
  ConversionQuota quota(policy);
  const auto convert = [&](uint64_t gfn, Direction direction, absl::Time now) {
    if (quota.TurnsTooOften(Frames(gfn, 1), direction, now)) return false;
    quota.Converted(Frames(gfn, 1), direction, now);
    return true;
  };
  // The same way as often as one likes; that is no turn.
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(convert(i, Direction::kToShared, kBegin));
  EXPECT_TRUE(convert(0, Direction::kToPrivate, kBegin));
  EXPECT_TRUE(convert(511, Direction::kToShared, kBegin));
  EXPECT_FALSE(convert(0, Direction::kToPrivate, kBegin));
  EXPECT_TRUE(convert(1, Direction::kToShared, kBegin));
  EXPECT_TRUE(convert(512, Direction::kToPrivate, kBegin)) << "another 2MiB";
  EXPECT_TRUE(convert(0, Direction::kToPrivate, kBegin + absl::Milliseconds(1001)));
}

TEST(ConversionQuotaTest, ManyRegionsAreForgottenWhenTheirWindowIsOver) {
  ConversionPolicy policy;
  policy.ping_pong_limit = 1;
  ConversionQuota quota(policy);
  absl::Time now = kBegin;
  for (uint64_t region = 0; region < 100'000; ++region) {
    quota.Converted(Frames(region * 512, 1), Direction::kToShared, now);
    now += absl::Milliseconds(10);
  }
  EXPECT_LT(quota.regions(), 5000u);
}

class DeskQuotaTest : public DeskFixture {
 protected:
  static ConversionPolicy Rate(uint32_t rate, uint32_t burst) {
    ConversionPolicy policy;
    policy.max_conversions_per_second = rate;
    policy.conversion_burst = burst;
    return policy;
  }
};

TEST_F(DeskQuotaTest, MapGpaOverTheSharedBytesIsRefusedAndTheGuestGoesOn) {
  ConversionPolicy policy;
  policy.max_shared_bytes = 600 * mmu::kPageSize;
  DeskVm& vm = Make(policy);
  ASSERT_TRUE(vm.desk().Api({.ranges = {Frames(2000, 8)}, .kind = MemoryKind::kShared}).ok());
  EXPECT_EQ(vm.MapGpa(0, 0, 1024).answer.result, MapGpaResult::kRetry);
  EXPECT_EQ(vm.MapGpa(0, 512, 512).answer.result, MapGpaResult::kDenied);
  // What it was granted before stays; 80 pages are left.
  EXPECT_TRUE(IsAll(vm.engine(), Frames(0, 512), MemoryKind::kShared));
  EXPECT_TRUE(IsAll(vm.engine(), Frames(512, 512), MemoryKind::kPrivate));
  EXPECT_EQ(vm.MapGpa(0, 512, 80).answer.result, MapGpaResult::kOk);
  EXPECT_EQ(vm.MapGpa(0, 600, 1).answer.result, MapGpaResult::kDenied);
  EXPECT_EQ(vm.MapGpa(0, 0, 1, kMapPrivateBit).answer.result, MapGpaResult::kOk);
  EXPECT_EQ(vm.MapGpa(0, 600, 1).answer.result, MapGpaResult::kOk);
  const std::vector<v1::Conversion> conversions = Conversions();
  ASSERT_EQ(conversions.size(), 7u);
  EXPECT_EQ(conversions[2].decision(), v1::Conversion::DECISION_QUOTA);
  EXPECT_EQ(conversions[2].quota(), v1::Conversion::QUOTA_SHARED_BYTES);
  EXPECT_EQ(conversions[2].id(), conversions[1].id()) << "one request, two ranges";
  EXPECT_EQ(conversions[2].gpa(), 512 * mmu::kPageSize);
  EXPECT_FALSE(vm.fatal().has_value());
}

TEST_F(DeskQuotaTest, AnAccessOverTheSharedBytesStopsTheVm) {
  ConversionPolicy policy;
  policy.max_shared_bytes = mmu::kPageSize;
  DeskVm& vm = Make(policy);
  EXPECT_EQ(vm.Access(0, 5, MemoryKind::kShared), Verdict::kResume);
  EXPECT_EQ(vm.Access(0, 6, MemoryKind::kShared), Verdict::kStop);
  ASSERT_TRUE(vm.fatal().has_value());
  EXPECT_EQ(vm.fatal()->first, StopReason::kConversionQuota);
  EXPECT_THAT(vm.fatal()->second, HasSubstr("more than 4096 bytes would be shared"));
  EXPECT_EQ(Conversions().back().quota(), v1::Conversion::QUOTA_SHARED_BYTES);
}

TEST_F(DeskQuotaTest, MapGpaOverTheRateIsRetriedAndToldOnce) {
  DeskVm& vm = Make(Rate(4, 2));
  EXPECT_EQ(vm.MapGpa(0, 0, 1).answer.result, MapGpaResult::kOk);
  EXPECT_EQ(vm.MapGpa(0, 1, 1).answer.result, MapGpaResult::kOk);
  int retries = 0;
  for (;; ++retries) {
    const vcpu::MapGpaVerdict verdict = vm.MapGpa(0, 10, 1024);
    if (verdict.answer.next_gpa != 10 * mmu::kPageSize) break;
    EXPECT_EQ(verdict.answer.result, MapGpaResult::kRetry);
  }
  EXPECT_GT(retries, 1);
  EXPECT_EQ(vm.desk().throttled(), static_cast<uint64_t>(retries));
  std::vector<v1::Conversion> told;
  for (const v1::Conversion& c : Conversions()) {
    if (c.decision() == v1::Conversion::DECISION_QUOTA) told.push_back(c);
  }
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].quota(), v1::Conversion::QUOTA_RATE);
  EXPECT_EQ(told[0].size(), 1024 * mmu::kPageSize);
  // Between two chunks, too: nothing is lost, the guest goes on where it was.
  EXPECT_EQ(vm.MapGpa(0, 512, 522).answer.next_gpa, 512 * mmu::kPageSize);
  EXPECT_TRUE(
      Eventually([&] { return vm.MapGpa(0, 512, 522).answer.next_gpa == 1024 * mmu::kPageSize; }));
}

TEST_F(DeskQuotaTest, AnAccessOverTheRateIsHeldUntilItsTurn) {
  DeskVm& vm = Make(Rate(5, 1));
  EXPECT_EQ(vm.Access(0, 0, MemoryKind::kShared), Verdict::kResume);
  const absl::Time begin = absl::Now();
  EXPECT_EQ(vm.Access(0, 1, MemoryKind::kShared), Verdict::kParked);
  EXPECT_EQ(vm.Access(0, 1, MemoryKind::kShared), Verdict::kParked) << "a signal woke it";
  EXPECT_EQ(vm.Access(1, 1, MemoryKind::kShared), Verdict::kParked) << "the same page";
  EXPECT_EQ(vm.Access(2, 2, MemoryKind::kShared), Verdict::kParked) << "one turn later";
  ASSERT_EQ(vm.desk().Pending().size(), 2u);
  EXPECT_EQ(vm.desk().Pending()[0].state, PendingConversion::State::kHeld);
  ASSERT_TRUE(vm.WaitResumed(2));
  EXPECT_GE(absl::Now() - begin, absl::Milliseconds(300));
  EXPECT_EQ(vm.resumed(0), 1);
  EXPECT_EQ(vm.resumed(1), 1);
  EXPECT_EQ(vm.desk().throttled(), 2u);
  ASSERT_EQ(Conversions().size(), 3u);
  for (const v1::Conversion& c : Conversions()) {
    EXPECT_EQ(c.decision(), v1::Conversion::DECISION_APPLIED);
    EXPECT_EQ(c.decider(), v1::Conversion::DECIDER_POLICY);
  }
}

TEST_F(DeskQuotaTest, AnAccessWhoseTurnWouldComeTooLateStopsTheVm) {
  ConversionPolicy policy = Rate(1, 1);
  policy.decision_timeout = absl::Milliseconds(100);
  DeskVm& vm = Make(policy);
  EXPECT_EQ(vm.Access(0, 0, MemoryKind::kShared), Verdict::kResume);
  EXPECT_EQ(vm.Access(0, 1, MemoryKind::kShared), Verdict::kStop);
  ASSERT_TRUE(vm.fatal().has_value());
  EXPECT_EQ(vm.fatal()->first, StopReason::kConversionQuota);
  EXPECT_THAT(vm.fatal()->second, HasSubstr("at 1 conversions a second"));
  EXPECT_EQ(Conversions().back().quota(), v1::Conversion::QUOTA_RATE);
}

TEST_F(DeskQuotaTest, AHeldAccessIsAskedForWhenItsTurnComesUnderAnOrchestrator) {
  ConversionPolicy policy = Rate(4, 1);
  policy.mode = PolicyMode::kOrchestrator;
  DeskVm& vm = Make(policy);
  EXPECT_EQ(vm.Access(0, 0, MemoryKind::kShared), Verdict::kParked);
  EXPECT_EQ(vm.Access(1, 1, MemoryKind::kShared), Verdict::kParked);
  EXPECT_EQ(Events().size(), 1u) << "the second is not asked for yet";
  ASSERT_TRUE(Eventually([&] { return Events().size() == 2; }));
  EXPECT_EQ(vm.desk().Pending()[1].state, PendingConversion::State::kWaiting);
  EXPECT_EQ(vm.desk().Resolve(2, Resolution::kApply).outcome, ResolveResult::Outcome::kDecided);
  EXPECT_TRUE(vm.WaitResumed(1));
}

TEST_F(DeskQuotaTest, PingPongIsRefused) {
  ConversionPolicy policy;
  policy.ping_pong_limit = 2;
  policy.ping_pong_window = absl::Hours(1);
  DeskVm& vm = Make(policy);
  EXPECT_EQ(vm.MapGpa(0, 0, 4).answer.result, MapGpaResult::kOk);
  EXPECT_EQ(vm.MapGpa(0, 0, 4, kMapPrivateBit).answer.result, MapGpaResult::kOk);
  EXPECT_EQ(vm.Access(0, 1, MemoryKind::kShared), Verdict::kResume);
  EXPECT_EQ(vm.MapGpa(0, 1, 1, kMapPrivateBit).answer.result, MapGpaResult::kDenied);
  EXPECT_EQ(vm.MapGpa(0, 600, 4).answer.result, MapGpaResult::kOk) << "another 2MiB";
  EXPECT_EQ(vm.Access(0, 1, MemoryKind::kPrivate), Verdict::kStop);
  EXPECT_EQ(vm.fatal()->first, StopReason::kConversionQuota);
  EXPECT_THAT(vm.fatal()->second, HasSubstr("to and fro 2 times within 1h"));
  EXPECT_EQ(Conversions().back().quota(), v1::Conversion::QUOTA_PING_PONG);
}

TEST_F(DeskQuotaTest, TheSharedBytesAreLookedAtAgainWhenARequestThatWaitedIsApplied) {
  ConversionPolicy policy = Orchestrated();
  policy.max_shared_bytes = mmu::kPageSize;
  DeskVm& vm = Make(policy);
  EXPECT_EQ(vm.Access(0, 0, MemoryKind::kShared), Verdict::kParked);
  EXPECT_EQ(vm.MapGpa(1, 1, 1).verdict, Verdict::kParked);
  EXPECT_EQ(vm.desk().Resolve(1, Resolution::kApply).verdict->decision, Decision::kApplied);
  EXPECT_EQ(vm.desk().Resolve(2, Resolution::kApply).verdict->decision, Decision::kQuota);
  EXPECT_EQ(vm.WaitAnswer(1)->result, MapGpaResult::kDenied);
}

TEST_F(DeskQuotaTest, AGuestThatAsksOnAfterEveryRefusalIsStopped) {
  ConversionPolicy policy;
  policy.max_shared_bytes = 1;
  DeskVm& vm = Make(policy);
  for (int i = 0; i < 999; ++i) {
    EXPECT_EQ(vm.MapGpa(0, 0, 1).answer.result, MapGpaResult::kDenied);
  }
  EXPECT_FALSE(vm.fatal().has_value());
  EXPECT_EQ(vm.MapGpa(0, 0, 1).answer.result, MapGpaResult::kDenied);
  ASSERT_TRUE(vm.fatal().has_value());
  EXPECT_EQ(vm.fatal()->first, StopReason::kConversionQuota);
}

TEST_F(DeskQuotaTest, ANewPolicyHoldsFromTheNextRequestOn) {
  DeskVm& vm = Make({});
  EXPECT_EQ(vm.MapGpa(0, 0, 1).answer.result, MapGpaResult::kOk);
  ConversionPolicy deny;
  deny.mode = PolicyMode::kDeny;
  vm.desk().SetPolicy(deny);
  EXPECT_EQ(vm.MapGpa(0, 1, 1).answer.result, MapGpaResult::kDenied);
  vm.desk().SetPolicy(Orchestrated());
  EXPECT_EQ(vm.MapGpa(0, 1, 1).verdict, Verdict::kParked);
}

}  // namespace
}  // namespace twinroot::host
