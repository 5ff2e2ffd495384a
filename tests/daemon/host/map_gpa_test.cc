// MapGPA: chunks, one request over all of them, one event for each contiguous range.
#include "gmock/gmock.h"
#include "tests/daemon/host/desk_fixture.h"

namespace twinroot::host {
namespace {

using mmu::Frames;
using mmu::MemoryKind;
using testing::ElementsAre;
using testing::Pair;
using vcpu::MapGpaResult;
using vcpu::Verdict;

constexpr uint64_t kChunk = 512;

class MapGpaTest : public DeskFixture {
 protected:
  // As a guest does: follows every retry. How many hypercalls it took.
  int Follow(DeskVm& vm, uint64_t gfn, uint64_t pages, MapGpaResult expected,
             uint64_t attributes = 0) {
    for (int calls = 1;; ++calls) {
      const vcpu::MapGpaVerdict verdict = vm.MapGpa(0, gfn, pages, attributes);
      EXPECT_EQ(verdict.verdict, Verdict::kResume);
      if (verdict.answer.result != MapGpaResult::kRetry) {
        EXPECT_EQ(verdict.answer.result, expected);
        return calls;
      }
      const uint64_t next = verdict.answer.next_gpa >> mmu::kPageShift;
      EXPECT_GT(next, gfn);
      EXPECT_LT(next, gfn + pages);
      pages -= next - gfn;
      gfn = next;
    }
  }
  // (first frame, frames) of each applied event.
  std::vector<std::pair<uint64_t, uint64_t>> Applied() {
    std::vector<std::pair<uint64_t, uint64_t>> ranges;
    for (const v1::Conversion& c : Conversions()) {
      EXPECT_EQ(c.decision(), v1::Conversion::DECISION_APPLIED);
      ranges.emplace_back(c.gpa() >> mmu::kPageShift, c.size() >> mmu::kPageShift);
    }
    return ranges;
  }
};

TEST_F(MapGpaTest, ARequestGoesInChunksOfTwoMiBAndIsOneEvent) {
  DeskVm& vm = Make({});
  // From the middle of the first 2 MiB to the middle of the third.
  EXPECT_EQ(Follow(vm, 100, 1100, MapGpaResult::kOk), 3);
  EXPECT_THAT(Applied(), ElementsAre(Pair(100, 1100)));
  EXPECT_TRUE(IsAll(vm.engine(), Frames(100, 1100), MemoryKind::kShared));
  EXPECT_EQ(Follow(vm, 0, 100, MapGpaResult::kOk), 1);
  EXPECT_EQ(Conversions()[0].id(), 1u);
  EXPECT_EQ(Conversions()[1].id(), 2u);
}

TEST_F(MapGpaTest, RetrySaysWhereToGoOnAndTheListHowFarItIs) {
  DeskVm& vm = Make({});
  const vcpu::MapGpaVerdict first = vm.MapGpa(3, 0, 2048);
  EXPECT_EQ(first.answer.result, MapGpaResult::kRetry);
  EXPECT_EQ(first.answer.next_gpa, kChunk << mmu::kPageShift);
  const std::vector<PendingConversion> pending = vm.desk().Pending();
  ASSERT_EQ(pending.size(), 1u);
  EXPECT_EQ(pending[0].state, PendingConversion::State::kApplying);
  EXPECT_EQ(pending[0].vcpu, 3u);
  EXPECT_EQ(pending[0].size, 2048 * mmu::kPageSize);
  EXPECT_EQ(pending[0].done, kChunk * mmu::kPageSize);
  EXPECT_EQ(vm.desk().waiting(), 0u);
  EXPECT_TRUE(IsAll(vm.engine(), Frames(0, kChunk), MemoryKind::kShared));
  EXPECT_TRUE(IsAll(vm.engine(), Frames(kChunk, 1536), MemoryKind::kPrivate));
}

TEST_F(MapGpaTest, PagesOfTheKindInBetweenMakeTwoEventsOfOneRequest) {
  DeskVm& vm = Make({});
  ASSERT_TRUE(vm.space().Convert({Frames(600, 10)}, MemoryKind::kShared).ok());
  Follow(vm, 500, 500, MapGpaResult::kOk);
  EXPECT_THAT(Applied(), ElementsAre(Pair(500, 100), Pair(610, 390)));
  EXPECT_EQ(Conversions()[0].id(), Conversions()[1].id());
}

TEST_F(MapGpaTest, AlternatingPagesAreBoundedByPartsOfAChunk) {
  DeskVm& vm = Make({});
  std::vector<mmu::GfnRange> odd;
  for (uint64_t gfn = 1; gfn < kChunk; gfn += 2) odd.push_back(Frames(gfn, 1));
  ASSERT_TRUE(vm.space().Convert(odd, MemoryKind::kShared).ok());
  EXPECT_EQ(Follow(vm, 0, kChunk, MapGpaResult::kOk), kChunk / 2 / kMaxPartsOfChunk);
  EXPECT_EQ(Applied().size(), kChunk / 2);
  EXPECT_TRUE(IsAll(vm.engine(), Frames(0, kChunk), MemoryKind::kShared));
}

TEST_F(MapGpaTest, WhatIsOfTheKindAlreadyIsPassedOverInBoundedLooks) {
  mmu::TestSpaceOptions options;
  options.frames = uint64_t{3} << 18;  // 3 GiB
  options.pool_pages = 4096;
  DeskVm& vm = Make({}, options);
  EXPECT_EQ(Follow(vm, 0, options.frames, MapGpaResult::kOk, kMapPrivateBit), 3);
  EXPECT_TRUE(Conversions().empty());
}

TEST_F(MapGpaTest, AnotherRequestEndsTheOneThatWasUnderWay) {
  DeskVm& vm = Make({});
  EXPECT_EQ(vm.MapGpa(0, 0, 2048).answer.result, MapGpaResult::kRetry);
  EXPECT_EQ(vm.MapGpa(0, 1024, 1).answer.result, MapGpaResult::kOk);
  EXPECT_THAT(Applied(), ElementsAre(Pair(0, kChunk), Pair(1024, 1)));
  EXPECT_TRUE(vm.desk().Pending().empty());
  // The rest of the former is a request of its own now.
  Follow(vm, kChunk, 1536, MapGpaResult::kOk);
  EXPECT_EQ(Conversions().back().id(), 3u);
}

TEST_F(MapGpaTest, WhatIsDoneIsToldSoonAlsoIfTheGuestNeverAsksForTheRest) {
  DeskVm& vm = Make({});
  EXPECT_EQ(vm.MapGpa(0, 0, 2048).answer.result, MapGpaResult::kRetry);
  ASSERT_TRUE(Eventually([&] { return !Conversions().empty(); }));
  EXPECT_THAT(Applied(), ElementsAre(Pair(0, kChunk)));
  // The rest goes on under the same id.
  Follow(vm, kChunk, 1536, MapGpaResult::kOk);
  EXPECT_THAT(Applied(), ElementsAre(Pair(0, kChunk), Pair(kChunk, 1536)));
  EXPECT_EQ(Conversions()[1].id(), Conversions()[0].id());
}

TEST_F(MapGpaTest, EventsStandInTheOrderOfEffectsWhenSomebodyConvertsBack) {
  DeskVm& vm = Make({});
  EXPECT_EQ(vm.MapGpa(0, 0, 2048).answer.result, MapGpaResult::kRetry);
  EXPECT_EQ(vm.Access(1, 7, MemoryKind::kPrivate), Verdict::kResume);
  Follow(vm, kChunk, 1536, MapGpaResult::kOk);
  EXPECT_THAT(Applied(), ElementsAre(Pair(0, kChunk), Pair(7, 1), Pair(kChunk, 1536)));
}

TEST_F(MapGpaTest, AStopTellsWhatIsDone) {
  DeskVm& vm = Make({});
  EXPECT_EQ(vm.MapGpa(0, 0, 2048).answer.result, MapGpaResult::kRetry);
  vm.desk().Close(ConversionDesk::Closing::kStopped);
  EXPECT_THAT(Applied(), ElementsAre(Pair(0, kChunk)));
  EXPECT_TRUE(vm.desk().Pending().empty());
  EXPECT_EQ(vm.MapGpa(0, kChunk, 1536).verdict, Verdict::kStop);
}

TEST_F(MapGpaTest, BadCallsChangeNothing) {
  DeskVm& vm = Make({});
  const std::pair<uint64_t, uint64_t> bad[] = {
      {0, 0}, {2000, 100}, {2048, 1}, {uint64_t{1} << 34, 1}, {~uint64_t{0} >> 12, 2}};
  for (const auto& [gfn, pages] : bad) {
    EXPECT_EQ(vm.MapGpa(0, gfn, pages).answer.result, MapGpaResult::kInvalid) << gfn;
  }
  EXPECT_EQ(vm.MapGpa(0, 0, 1, 1 << 6).answer.result, MapGpaResult::kInvalid);
  EXPECT_EQ(vm.desk().Explicit(0, {8, 1, 0}, absl::Now()).answer.result, MapGpaResult::kInvalid);
  EXPECT_TRUE(Events().empty());
  EXPECT_TRUE(IsAll(vm.engine(), Frames(0, 2048), MemoryKind::kPrivate));
}

TEST_F(MapGpaTest, AnApprovedRequestAppliesItsFirstChunkAndTheGuestAsksForTheRest) {
  DeskVm& vm = Make(Orchestrated());
  EXPECT_EQ(vm.MapGpa(0, 0, 2048).verdict, Verdict::kParked);
  ASSERT_EQ(vm.desk().Pending().size(), 1u);
  EXPECT_EQ(vm.desk().Pending()[0].size, 2048 * mmu::kPageSize);
  const ResolveResult resolved = vm.desk().Resolve(1, Resolution::kApply);
  EXPECT_EQ(resolved.outcome, ResolveResult::Outcome::kDecided);
  const auto answer = vm.WaitAnswer(0);
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->result, MapGpaResult::kRetry);
  EXPECT_EQ(answer->next_gpa, kChunk << mmu::kPageShift);
  // Nobody is asked again.
  EXPECT_EQ(Follow(vm, kChunk, 1536, MapGpaResult::kOk), 3);
  EXPECT_THAT(Applied(), ElementsAre(Pair(0, 2048)));
  EXPECT_EQ(Conversions()[0].decider(), v1::Conversion::DECIDER_ORCHESTRATOR);
  EXPECT_EQ(Conversions()[0].id(), 1u);
}

TEST_F(MapGpaTest, WhereTheEngineRefusesTheRequestStillEnds) {
  DeskVm& vm = Make({});
  EXPECT_EQ(vm.MapGpa(0, 0, 1024, kMapPreserveBit).answer.result, MapGpaResult::kRetry);
  vm.space().pages.fail_reserve_in = 0;
  EXPECT_EQ(vm.MapGpa(0, kChunk, 512, kMapPreserveBit).verdict, Verdict::kStop);
  ASSERT_TRUE(vm.fatal().has_value());
  EXPECT_EQ(vm.fatal()->first, vcpu::StopReason::kOutOfMemory);
  const std::vector<v1::Conversion> conversions = Conversions();
  ASSERT_EQ(conversions.size(), 2u);
  EXPECT_EQ(conversions[0].decision(), v1::Conversion::DECISION_APPLIED);
  EXPECT_EQ(conversions[1].decision(), v1::Conversion::DECISION_DENIED);
  EXPECT_EQ(conversions[1].gpa(), kChunk << mmu::kPageShift);
  EXPECT_TRUE(vm.desk().Pending().empty());
}

}  // namespace
}  // namespace twinroot::host
