#include <set>
#include <vector>

#include "tests/daemon/rpc/event_fixture.h"

namespace twinroot::rpc {
namespace {

using grpc::StatusCode;

using EventServiceTest = EventFixture;

TEST_F(EventServiceTest, WatchWithoutCursorTellsWhatComes) {
  Append("old", 3);
  auto watch = Open();
  Append("new", 2);
  ASSERT_TRUE(watch->ReadUntil(2));
  EXPECT_EQ(watch->events[0].vm(), "new");
  EXPECT_EQ(watch->events[0].vm_sequence(), 1u);
  EXPECT_EQ(watch->events[1].conversion().id(), 5u);
}

TEST_F(EventServiceTest, WatchResumesAfterTheCursorWithoutHoleOrRepeat) {
  auto first = Open();
  Append("a", 10);
  ASSERT_TRUE(first->ReadUntil(1));
  v1::WatchEventsRequest request;
  request.set_start_cursor(first->events[0].cursor());
  first->context.TryCancel();
  Append("a", 10);
  auto second = Open(request);
  ASSERT_TRUE(second->ReadUntil(19));
  for (uint64_t i = 0; i < 19; ++i) EXPECT_EQ(second->events[i].conversion().id(), i + 2);
}

TEST_F(EventServiceTest, WatchFromListedCursorMissesNothing) {
  Make("demo");
  grpc::ClientContext context;
  v1::ListVmsResponse list;
  ASSERT_TRUE(vms_->ListVms(&context, v1::ListVmsRequest(), &list).ok());
  ASSERT_TRUE(Start("demo").ok());
  v1::WatchEventsRequest request;
  request.set_start_cursor(list.cursor());
  auto watch = Open(request);
  ASSERT_TRUE(watch->ReadUntil(1));
  EXPECT_EQ(watch->events[0].vm_state().state(), v1::Vm::STATE_RUNNING);
}

TEST_F(EventServiceTest, FilterShowsOneVm) {
  v1::WatchEventsRequest request;
  request.mutable_filter()->set_vm("b");
  auto watch = Open(request);
  Append("a", 5);
  Append("b", 1);
  Append("a", 5);
  Append("b", 1);
  ASSERT_TRUE(watch->ReadUntil(2));
  EXPECT_EQ(watch->events[0].conversion().id(), 6u);
  EXPECT_EQ(watch->events[1].conversion().id(), 12u);
}

TEST_F(EventServiceTest, FilterShowsSeveralVmsAndSomeKinds) {
  v1::WatchEventsRequest request;
  request.mutable_filter()->set_vm("a");
  request.mutable_filter()->add_vms("b");
  request.mutable_filter()->add_kinds(v1::EVENT_KIND_VM_STATE);
  auto watch = Open(request);
  Append("a", 3);
  Make("a");
  Make("c");
  Make("b");
  ASSERT_TRUE(watch->ReadUntil(2));
  EXPECT_EQ(watch->events[0].vm(), "a");
  EXPECT_TRUE(watch->events[0].has_vm_state());
  EXPECT_EQ(watch->events[1].vm(), "b");
}

TEST_F(EventServiceTest, InitialStateComesWhateverTheKindsOfTheFilter) {
  Make("a");
  Make("b");
  v1::WatchEventsRequest request;
  request.mutable_filter()->add_vms("b");
  request.mutable_filter()->add_kinds(v1::EVENT_KIND_CONVERSION);
  request.set_initial_state(v1::WatchEventsRequest::INITIAL_STATE_SEND);
  auto watch = Open(request);
  ASSERT_TRUE(watch->ReadUntil(2));
  EXPECT_EQ(watch->events[0].vm(), "b");
  EXPECT_TRUE(watch->events[1].has_bookmark());
}

TEST_F(EventServiceTest, InitialStateComesFirstThenABookmarkThenLive) {
  Make("a");
  Make("b").ExitWith(5);
  v1::WatchEventsRequest request;
  request.set_initial_state(v1::WatchEventsRequest::INITIAL_STATE_SEND);
  auto watch = Open(request);
  Append("a", 1);
  ASSERT_TRUE(watch->ReadUntil(4));
  EXPECT_EQ(watch->events[0].vm(), "a");
  EXPECT_EQ(watch->events[0].vm_state().state(), v1::Vm::STATE_DEFINED);
  EXPECT_EQ(watch->events[0].vm_sequence(), 0u);
  EXPECT_EQ(watch->events[1].vm_state().exit_code(), 5u);
  EXPECT_TRUE(watch->events[2].has_bookmark());
  EXPECT_TRUE(watch->events[3].has_conversion());
  EXPECT_GT(watch->events[3].vm_sequence(), 0u);
}

TEST_F(EventServiceTest, InitialStateOfManyVmsComesWhole) {
  for (int i = 0; i < 600; ++i) {
    host::VmSpec spec;
    spec.name = absl::StrCat("vm", i);
    spec.memory_bytes = uint64_t{2} << 20;
    ASSERT_TRUE(registry_->Create(std::move(spec)).ok());
  }
  v1::WatchEventsRequest request;
  request.set_initial_state(v1::WatchEventsRequest::INITIAL_STATE_SEND);
  auto watch = Open(request);
  ASSERT_TRUE(watch->ReadUntil(601));
  std::set<std::string> names;
  for (int i = 0; i < 600; ++i) names.insert(watch->events[i].vm());
  EXPECT_EQ(names.size(), 600u);
  EXPECT_TRUE(watch->events[600].has_bookmark());
}

TEST_F(EventServiceTest, EventsUnderLoadComeInOrderAndBatched) {
  auto watch = Open();
  constexpr uint64_t kEvents = 20'000;
  std::thread load([&] { Append("a", kEvents); });
  EXPECT_TRUE(watch->ReadUntil(kEvents));
  load.join();
  for (uint64_t i = 0; i < kEvents; ++i) {
    ASSERT_EQ(watch->events[i].conversion().id(), i + 1);
    ASSERT_EQ(watch->events[i].vm_sequence(), i + 1);
  }
}

TEST_F(EventServiceTest, OvertakenWatcherGetsAGapThatCountsExactly) {
  Restart(100, absl::Seconds(3600));
  Append("a", 5);
  v1::WatchEventsRequest request;
  request.set_start_cursor(journal_->OldestCursor());
  auto watch = Open(request);
  // Far more than the journal, the stream's buffers and the socket hold together: nobody reads.
  constexpr uint64_t kEvents = 60'000;
  Append("a", kEvents - 5);
  const std::string last = journal_->Cursor();
  uint64_t seen = 0;
  uint64_t gaps = 0;
  std::string place;
  while (place != last) {
    watch->events.clear();
    ASSERT_TRUE(watch->ReadUntil(1));
    for (const v1::Event& event : watch->events) {
      if (event.has_gap()) {
        ++gaps;
        seen += event.gap().count();
        EXPECT_EQ(event.gap().to_cursor(), event.cursor());
        EXPECT_EQ(event.vm_sequence(), 0u);
        if (!place.empty()) {
          EXPECT_EQ(event.gap().from_cursor(), place);
        }
      } else {
        EXPECT_EQ(event.vm_sequence(), ++seen);
      }
      place = event.cursor();
    }
  }
  EXPECT_EQ(seen, kEvents);
  EXPECT_GE(gaps, 1u);
  EXPECT_EQ(gaps_told_, gaps);
  EXPECT_GT(gap_events_told_, gaps);
}

TEST_F(EventServiceTest, BookmarksComeWhenNothingHappens) {
  Restart(1000, absl::Milliseconds(20));
  Append("a", 3);
  auto watch = Open();
  ASSERT_TRUE(watch->ReadUntil(2));
  EXPECT_TRUE(watch->events[0].has_bookmark());
  EXPECT_EQ(watch->events[0].cursor(), journal_->Cursor());
  EXPECT_EQ(watch->events[0].vm_sequence(), 0u);
}

TEST_F(EventServiceTest, BookmarkOfAFilteredStreamMovesOn) {
  Restart(1000, absl::Milliseconds(20));
  v1::WatchEventsRequest request;
  request.mutable_filter()->set_vm("quiet");
  auto watch = Open(request);
  Append("a", 3);
  Eventually([&] {
    watch->events.clear();
    return watch->ReadUntil(1) && watch->events.back().cursor() == journal_->Cursor();
  });
  EXPECT_TRUE(watch->events.back().has_bookmark());
}

TEST_F(EventServiceTest, DrainSendsWhatIsLeftThenABookmarkThenEnds) {
  auto watch = Open();
  Append("a", 700);
  server_->EndStreams();
  watch->ReadToEnd();
  ASSERT_EQ(watch->events.size(), 701u);
  EXPECT_EQ(watch->events[699].conversion().id(), 700u);
  EXPECT_TRUE(watch->events[700].has_bookmark());
  EXPECT_EQ(watch->events[700].cursor(), journal_->Cursor());
  EXPECT_TRUE(watch->reader->Finish().ok());
}

TEST_F(EventServiceTest, KilledWatchersCostNothingToOthers) {
  auto survivor = Open();
  for (int i = 0; i < 20; ++i) {
    auto killed = Open();
    Append("a", 1);
    killed->context.TryCancel();
    EXPECT_EQ(killed->reader->Finish().error_code(), StatusCode::CANCELLED);
  }
  auto stuck = Open();  // never reads
  Append("a", 10'000);
  ASSERT_TRUE(survivor->ReadUntil(10'020));
  EXPECT_EQ(survivor->events.back().conversion().id(), 10'020u);
  Make("demo");
  EXPECT_TRUE(Start("demo").ok());
}

TEST_F(EventServiceTest, ALosslessWatchHoldsUntilItHasReadAndEndsIfItNeverDoes) {
  v1::WatchEventsRequest request;
  request.mutable_lossless_hold()->set_seconds(30);
  auto reads = Open(request);
  request.mutable_lossless_hold()->set_seconds(0);
  request.mutable_lossless_hold()->set_nanos(200'000'000);
  request.mutable_filter()->set_vm("b");
  auto stuck = Open(request);
  // More than a connection holds for who does not read.
  constexpr size_t kEvents = 4'000;
  for (size_t i = 0; i < kEvents; ++i) {
    v1::Event event;
    event.set_vm("b");
    event.mutable_audit_failure()->set_detail(std::string(8192, 'x'));
    journal_->Append(event);
  }
  EXPECT_NE(journal_->HeldUntil("b"), std::nullopt);
  EXPECT_NE(journal_->HeldUntil("a"), std::nullopt);
  ASSERT_TRUE(reads->ReadUntil(kEvents));
  for (size_t i = 0; i < kEvents; ++i) ASSERT_EQ(reads->events[i].vm_sequence(), i + 1);
  Eventually([&] { return !journal_->HeldUntil("a").has_value(); });
  Eventually([&] { return !journal_->HeldUntil("b").has_value(); });
  stuck->ReadToEnd();
  const grpc::Status status = stuck->reader->Finish();
  ExpectError(status, StatusCode::ABORTED, "WATCH_TOO_SLOW");
  // Where it ended another begins, and nothing is missed.
  request.clear_lossless_hold();
  request.set_start_cursor(InfoOf(status).metadata().at("cursor"));
  auto again = Open(request);
  const size_t before = stuck->events.size();
  ASSERT_LT(before, kEvents);
  ASSERT_TRUE(again->ReadUntil(kEvents - before));
  for (size_t i = before; i < kEvents; ++i) {
    ASSERT_EQ(again->events[i - before].vm_sequence(), i + 1);
  }
}

TEST_F(EventServiceTest, ALosslessWatchHoldsNobodyForWhatItsFilterLeavesOut) {
  v1::WatchEventsRequest request;
  request.mutable_lossless_hold()->set_seconds(30);
  request.mutable_filter()->add_kinds(v1::EVENT_KIND_VM_STATE);
  auto watch = Open(request);
  for (int i = 0; i < 20'000; ++i) {
    v1::Event event;
    event.set_vm("b");
    event.mutable_audit_failure();
    journal_->Append(event);
  }
  Eventually([&] { return !journal_->HeldUntil("b").has_value(); });
}

TEST_F(EventServiceTest, WatchRefusesBadCursorsAndChoices) {
  v1::WatchEventsRequest request;
  request.set_start_cursor("nonsense");
  ExpectError(Open(request)->reader->Finish(), StatusCode::INVALID_ARGUMENT, "CURSOR_MALFORMED");
  request.set_start_cursor("0000000000000000-0");
  const grpc::Status status = Open(request)->reader->Finish();
  ExpectError(status, StatusCode::OUT_OF_RANGE, "CURSOR_OTHER_EPOCH");
  EXPECT_EQ(InfoOf(status).metadata().at("oldest_cursor"), journal_->OldestCursor());

  request.set_start_cursor(journal_->Cursor());
  request.set_initial_state(v1::WatchEventsRequest::INITIAL_STATE_SEND);
  ExpectRefused(request, "INVALID_FIELD", "initial_state");
  request.Clear();
  request.set_initial_state(static_cast<v1::WatchEventsRequest::InitialState>(9));
  ExpectRefused(request, "INVALID_FIELD", "initial_state");
  request.Clear();
  request.mutable_filter()->set_vm("No Name");
  ExpectRefused(request, "INVALID_NAME", "filter.vm");
  request.Clear();
  request.mutable_filter()->add_vms("good");
  request.mutable_filter()->add_vms("No Name");
  ExpectRefused(request, "INVALID_NAME", "filter.vms[1]");
  request.Clear();
  for (int i = 0; i < 1025; ++i) request.mutable_filter()->add_vms("a");
  ExpectRefused(request, "INVALID_FIELD", "filter.vms");
  request.Clear();
  for (const int kind : {0, 1, 20, 64, -1}) {
    request.mutable_filter()->clear_kinds();
    request.mutable_filter()->add_kinds(v1::EVENT_KIND_VM_STATE);
    request.mutable_filter()->add_kinds(static_cast<v1::EventKind>(kind));
    ExpectRefused(request, "INVALID_FIELD", "filter.kinds[1]");
  }
}

TEST_F(EventServiceTest, ListEventsPagesThroughTheJournal) {
  Append("a", 25);
  v1::ListEventsRequest request;
  request.set_page_size(10);
  std::vector<uint64_t> ids;
  int size = 0;
  do {
    grpc::ClientContext context;
    v1::ListEventsResponse response;
    ASSERT_TRUE(events_->ListEvents(&context, request, &response).ok());
    size = response.events_size();
    for (const v1::Event& event : response.events()) ids.push_back(event.conversion().id());
    request.set_start_cursor(response.next_cursor());
  } while (size == 10);
  ASSERT_EQ(ids.size(), 25u);
  for (uint64_t i = 0; i < ids.size(); ++i) EXPECT_EQ(ids[i], i + 1);
  EXPECT_EQ(request.start_cursor(), journal_->Cursor());
}

TEST_F(EventServiceTest, ListEventsRefusesBadPages) {
  v1::ListEventsResponse response;
  v1::ListEventsRequest request;
  request.set_page_size(1001);
  grpc::ClientContext context;
  ExpectBadField(events_->ListEvents(&context, request, &response), "INVALID_FIELD", "page_size");
}

TEST_F(EventServiceTest, WaitingConversionsAreListedAndDecidedOneByOne) {
  fakes::FakeVm& vm = Make("demo");
  const uint64_t first = vm.AskToConvert(0x1000, 0x2000, host::Direction::kToShared);
  const uint64_t second = vm.AskToConvert(0x8000, 0x1000, host::Direction::kToPrivate);
  {
    grpc::ClientContext context;
    v1::ListConversionsRequest request;
    request.set_vm("demo");
    v1::ListConversionsResponse response;
    ASSERT_TRUE(events_->ListConversions(&context, request, &response).ok());
    ASSERT_EQ(response.conversions_size(), 2);
    EXPECT_EQ(response.conversions(0).id(), first);
    EXPECT_EQ(response.conversions(0).gpa(), 0x1000u);
    EXPECT_EQ(response.conversions(0).size(), 0x2000u);
    EXPECT_EQ(response.conversions(0).direction(), v1::Conversion::DIRECTION_TO_SHARED);
    EXPECT_EQ(response.conversions(0).cause(), v1::Conversion::CAUSE_EXPLICIT);
    EXPECT_GT(response.conversions(0).deadline().seconds(), 0);
    EXPECT_EQ(response.conversions(1).direction(), v1::Conversion::DIRECTION_TO_PRIVATE);
  }
  v1::ResolveConversionRequest request;
  request.set_vm("demo");
  request.set_decision(v1::ResolveConversionRequest::DECISION_APPLY);
  request.add_ids(second);
  request.add_ids(999);
  request.add_ids(second);
  grpc::ClientContext context;
  v1::ResolveConversionResponse response;
  ASSERT_TRUE(events_->ResolveConversion(&context, request, &response).ok());
  ASSERT_EQ(response.results_size(), 3);
  EXPECT_EQ(response.results(0).outcome(), v1::ResolveConversionResponse::OUTCOME_DECIDED);
  EXPECT_EQ(response.results(0).decision(), v1::Conversion::DECISION_APPLIED);
  EXPECT_EQ(response.results(0).decider(), v1::Conversion::DECIDER_ORCHESTRATOR);
  EXPECT_EQ(response.results(1).outcome(), v1::ResolveConversionResponse::OUTCOME_UNKNOWN);
  EXPECT_EQ(response.results(1).decision(), v1::Conversion::DECISION_UNSPECIFIED);
  EXPECT_EQ(response.results(1).id(), 999u);
  EXPECT_EQ(response.results(2).outcome(), v1::ResolveConversionResponse::OUTCOME_ALREADY_DECIDED);
  EXPECT_EQ(response.results(2).decision(), v1::Conversion::DECISION_APPLIED);
  EXPECT_EQ(vm.Pending().size(), 1u);
}

TEST_F(EventServiceTest, ResolveRefusesBadRequests) {
  fakes::FakeVm& vm = Make("demo");
  const uint64_t id = vm.AskToConvert(0, 4096, host::Direction::kToShared);
  const auto resolve = [&](const v1::ResolveConversionRequest& request) {
    grpc::ClientContext context;
    v1::ResolveConversionResponse response;
    return events_->ResolveConversion(&context, request, &response);
  };
  v1::ResolveConversionRequest request;
  request.set_vm("demo");
  request.add_ids(id);
  ExpectBadField(resolve(request), "MISSING_FIELD", "decision");
  request.set_decision(static_cast<v1::ResolveConversionRequest::Decision>(9));
  ExpectBadField(resolve(request), "INVALID_FIELD", "decision");
  request.set_decision(v1::ResolveConversionRequest::DECISION_DENY);
  request.clear_ids();
  ExpectBadField(resolve(request), "MISSING_FIELD", "ids");
  for (int i = 0; i < 1025; ++i) request.add_ids(id);
  ExpectBadField(resolve(request), "INVALID_FIELD", "ids");
  request.set_vm("nobody");
  ExpectError(resolve(request), StatusCode::NOT_FOUND, "NO_SUCH_VM");
  EXPECT_EQ(vm.Pending().size(), 1u);
}

}  // namespace
}  // namespace twinroot::rpc
