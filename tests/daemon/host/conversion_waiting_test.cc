// Requests that wait: what whoever decides them is told, and that no VM waits for another.
#include <atomic>

#include "gmock/gmock.h"
#include "tests/daemon/host/desk_fixture.h"

namespace twinroot::host {
namespace {

using mmu::Frames;
using mmu::MemoryKind;
using vcpu::MapGpaResult;
using vcpu::Verdict;
using Outcome = ResolveResult::Outcome;

class WaitingTest : public DeskFixture {
 protected:
  static void ExpectResult(const ResolveResult& result, Outcome outcome, Decision decision,
                           Decider decider) {
    EXPECT_EQ(result.outcome, outcome);
    ASSERT_TRUE(result.verdict.has_value());
    EXPECT_EQ(result.verdict->decision, decision);
    EXPECT_EQ(result.verdict->decider, decider);
  }
};

TEST_F(WaitingTest, DecidedTwiceLateOrNeverAskedEachHasItsAnswer) {
  DeskVm& vm = Make(Orchestrated(absl::Milliseconds(300)));
  ASSERT_EQ(vm.MapGpa(0, 0, 1).verdict, Verdict::kParked);
  ExpectResult(vm.desk().Resolve(1, Resolution::kDeny), Outcome::kDecided, Decision::kDenied,
               Decider::kOrchestrator);
  EXPECT_EQ(vm.WaitAnswer(0)->result, MapGpaResult::kDenied);
  ExpectResult(vm.desk().Resolve(1, Resolution::kApply), Outcome::kAlreadyDecided,
               Decision::kDenied, Decider::kOrchestrator);

  ASSERT_EQ(vm.MapGpa(0, 0, 1).verdict, Verdict::kParked);
  EXPECT_EQ(vm.WaitAnswer(0)->result, MapGpaResult::kDenied);
  ExpectResult(vm.desk().Resolve(2, Resolution::kApply), Outcome::kExpired, Decision::kExpired,
               Decider::kDeadline);

  ASSERT_EQ(vm.MapGpa(0, 0, 1).verdict, Verdict::kParked);
  vm.desk().Close(ConversionDesk::Closing::kStopped);
  ExpectResult(vm.desk().Resolve(3, Resolution::kApply), Outcome::kAlreadyDecided,
               Decision::kDenied, Decider::kVmStop);

  for (const uint64_t never : {uint64_t{0}, uint64_t{4}, ~uint64_t{0}}) {
    const ResolveResult result = vm.desk().Resolve(never, Resolution::kApply);
    EXPECT_EQ(result.outcome, Outcome::kUnknown) << never;
    EXPECT_FALSE(result.verdict.has_value());
  }
  EXPECT_TRUE(IsAll(vm.engine(), Frames(0, 1), MemoryKind::kPrivate));
}

TEST_F(WaitingTest, ADeadlineThatAppliedSaysSo) {
  ConversionPolicy policy = Orchestrated(absl::Milliseconds(20));
  policy.on_timeout = OnTimeout::kApply;
  DeskVm& vm = Make(policy);
  ASSERT_EQ(vm.Access(0, 0, MemoryKind::kShared), Verdict::kParked);
  ASSERT_TRUE(vm.WaitResumed(0));
  ExpectResult(vm.desk().Resolve(1, Resolution::kDeny), Outcome::kExpired, Decision::kApplied,
               Decider::kDeadline);
}

TEST_F(WaitingTest, DecisionsOfLongAgoAreDecidedButHowIsForgotten) {
  DeskVm& vm = Make(Orchestrated());
  for (uint64_t id = 1; id <= ConversionHistory::kKept + 1; ++id) {
    ASSERT_EQ(vm.MapGpa(0, 0, 1).verdict, Verdict::kParked);
    vm.desk().Resolve(id, Resolution::kDeny);
  }
  EXPECT_EQ(vm.desk().Resolve(1, Resolution::kDeny).outcome, Outcome::kAlreadyDecided);
  EXPECT_FALSE(vm.desk().Resolve(1, Resolution::kDeny).verdict.has_value());
  EXPECT_TRUE(vm.desk().Resolve(2, Resolution::kDeny).verdict.has_value());
}

TEST_F(WaitingTest, MemoryThatIsSetDecidesWhatItCoversWhollyByOneCallOrSeveral) {
  DeskVm& vm = Make(Orchestrated());
  ASSERT_EQ(vm.MapGpa(0, 100, 1000).verdict, Verdict::kParked);
  ASSERT_EQ(vm.Access(1, 99, MemoryKind::kShared), Verdict::kParked);
  const auto set = [&](mmu::GfnRange range, MemoryKind kind) {
    ASSERT_TRUE(vm.desk().Api({.ranges = {range}, .kind = kind}).ok());
  };
  set(Frames(50, 500), MemoryKind::kShared);
  ASSERT_TRUE(vm.WaitResumed(1)) << "covered wholly";
  EXPECT_EQ(vm.desk().waiting(), 1u) << "covered partly";
  set(Frames(100, 1000), MemoryKind::kPrivate);
  EXPECT_EQ(vm.desk().waiting(), 1u) << "the other way";
  set(Frames(100, 1000), MemoryKind::kShared);
  EXPECT_EQ(vm.WaitAnswer(0)->result, MapGpaResult::kOk);
  ExpectResult(vm.desk().Resolve(1, Resolution::kDeny), Outcome::kAlreadyDecided,
               Decision::kApplied, Decider::kOrchestrator);
}

// A page source that takes as long as the test wants, in the middle of a conversion.
class Gate {
 public:
  explicit Gate(DeskVm& vm) {
    vm.space().pages.on_content = [this](mmu::GfnRange) {
      entered_ = true;
      while (!open_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    };
  }
  bool entered() const { return entered_; }
  void Open() { open_ = true; }

 private:
  std::atomic<bool> entered_{false};
  std::atomic<bool> open_{false};
};

TEST_F(WaitingTest, ASlowConversionOfOneVmDelaysNoDeadlineOfAnother) {
  ConversionPolicy applies = Orchestrated(absl::Milliseconds(20));
  applies.on_timeout = OnTimeout::kApply;
  DeskVm& slow = Make(applies);
  Gate gate(slow);
  // By the deadline: the clock's own work is the slow one.
  ASSERT_EQ(slow.MapGpa(0, 0, 512, kMapPreserveBit).verdict, Verdict::kParked);
  ASSERT_TRUE(Eventually([&] { return gate.entered(); }));

  DeskVm& quick = Make(Orchestrated(absl::Milliseconds(50)));
  const absl::Time begin = absl::Now();
  ASSERT_EQ(quick.MapGpa(0, 0, 1).verdict, Verdict::kParked);
  const auto answer = quick.WaitAnswer(0);
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->result, MapGpaResult::kDenied);
  EXPECT_LT(absl::Now() - begin, absl::Seconds(5));
  // Decisions of the other VM, and what lists and metrics read of the slow one, wait no more.
  ASSERT_EQ(quick.MapGpa(0, 0, 1).verdict, Verdict::kParked);
  EXPECT_EQ(quick.desk().Resolve(2, Resolution::kApply).outcome, Outcome::kDecided);
  EXPECT_LE(slow.desk().Pending().size(), 1u);
  EXPECT_EQ(slow.desk().waiting(), 0u);
  EXPECT_TRUE(Conversions("vm0").empty()) << "the slow one is still at it";

  gate.Open();
  EXPECT_EQ(slow.WaitAnswer(0)->result, MapGpaResult::kOk);
}

}  // namespace
}  // namespace twinroot::host
