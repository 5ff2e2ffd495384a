// The conversion desk and lossless watches: guests wait for one that is too far behind.
#include "tests/daemon/host/desk_fixture.h"

namespace twinroot::host {
namespace {

using mmu::MemoryKind;
using vcpu::MapGpaResult;
using vcpu::Verdict;

class HeldBackTest : public DeskFixture {
 protected:
  void Fill() {
    for (uint64_t i = 0; i <= events::LosslessWatches::kRoom; ++i) {
      v1::Event event;
      event.mutable_bookmark();
      journal_.Append(event);
    }
  }
  void CatchUp() { watches().Reached(*watch_, journal_.next(), journal_.next()); }
  events::LosslessWatches& watches() { return journal_.lossless(); }

  std::shared_ptr<events::LosslessWatches::Watch> watch_ =
      journal_.lossless().Add({}, 0, absl::Seconds(30));
};

TEST_F(HeldBackTest, AnAccessWaitsUntilTheWatchHasCaughtUp) {
  DeskVm& vm = Make({});
  EXPECT_EQ(vm.Access(0, 0, MemoryKind::kShared), Verdict::kResume);
  Fill();
  EXPECT_EQ(vm.Access(0, 1, MemoryKind::kShared), Verdict::kParked);
  EXPECT_EQ(vm.Access(0, 1, MemoryKind::kShared), Verdict::kParked) << "a signal woke it";
  EXPECT_EQ(vm.Access(1, 2, MemoryKind::kShared), Verdict::kParked);
  EXPECT_EQ(vm.desk().held_back(), 2u);
  EXPECT_EQ(Conversions().size(), 1u) << "nothing happened yet";
  CatchUp();
  ASSERT_TRUE(vm.WaitResumed(0));
  ASSERT_TRUE(vm.WaitResumed(1));
  EXPECT_EQ(vm.resumed(0), 1);
  // They ask again, and now it is done.
  EXPECT_EQ(vm.Access(0, 1, MemoryKind::kShared), Verdict::kResume);
  EXPECT_EQ(Conversions().size(), 2u);
}

TEST_F(HeldBackTest, MapGpaWaitsAtItsNextChunkAndGoesOnWhereItWas) {
  DeskVm& vm = Make({});
  EXPECT_EQ(vm.MapGpa(0, 0, 1024).answer.next_gpa, 512 * mmu::kPageSize);
  Fill();
  EXPECT_EQ(vm.MapGpa(0, 512, 512).verdict, Verdict::kParked);
  CatchUp();
  const auto answer = vm.WaitAnswer(0);
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->result, MapGpaResult::kRetry);
  EXPECT_EQ(answer->next_gpa, 512 * mmu::kPageSize);
  EXPECT_EQ(vm.MapGpa(0, 512, 512).answer.result, MapGpaResult::kOk);
  uint64_t told = 0;
  for (const v1::Conversion& c : Conversions()) {
    EXPECT_EQ(c.id(), 1u) << "one request";
    told += c.size();
  }
  EXPECT_EQ(told, 1024 * mmu::kPageSize);
}

TEST_F(HeldBackTest, WhoWaitedLongEnoughGoesOnAndTheWatchIsExpired) {
  watches().Remove(*watch_);
  watch_ = watches().Add({}, 0, absl::Milliseconds(200));
  DeskVm& vm = Make({});
  Fill();
  const absl::Time begin = absl::Now();
  EXPECT_EQ(vm.Access(0, 1, MemoryKind::kShared), Verdict::kParked);
  ASSERT_TRUE(vm.WaitResumed(0));
  EXPECT_GE(absl::Now() - begin, absl::Milliseconds(190));
  EXPECT_TRUE(watch_->expired());
  EXPECT_EQ(vm.Access(0, 1, MemoryKind::kShared), Verdict::kResume);
}

TEST_F(HeldBackTest, AVmThatStopsWaitsForNothing) {
  DeskVm& vm = Make({});
  Fill();
  EXPECT_EQ(vm.Access(0, 1, MemoryKind::kShared), Verdict::kParked);
  vm.desk().Close(ConversionDesk::Closing::kStopped);
  CatchUp();
  EXPECT_EQ(vm.Access(0, 1, MemoryKind::kShared), Verdict::kStop);
  EXPECT_EQ(vm.resumed(0), 0);
}

TEST_F(HeldBackTest, TheApiWaitsForNobody) {
  DeskVm& vm = Make({});
  Fill();
  mmu::AttributeChange change;
  change.ranges = {{mmu::Gfn(0), 16}};
  change.kind = MemoryKind::kShared;
  EXPECT_TRUE(vm.desk().Api(change).ok());
  EXPECT_EQ(Conversions().size(), 1u);
}

}  // namespace
}  // namespace twinroot::host
