// EventService over a journal in a file: what restarts, compaction and the disk mean to callers.
#include <set>
#include <thread>
#include <vector>

#include "tests/daemon/rpc/event_fixture.h"

namespace twinroot::rpc {
namespace {

using grpc::StatusCode;

class EventJournalTest : public EventFixture {
 protected:
  void SetUp() override {
    EventFixture::SetUp();
    options_.path = folder_ + "/events.sqlite";
    options_.in_memory = 100;
    options_.notice = absl::Milliseconds(20);
  }

  events::JournalOptions options_;
};

TEST_F(EventJournalTest, AWatchGoesOnWhereItWasWhenTheDaemonWasRestarted) {
  RestartOn(options_);
  auto first = Open();
  Append("a", 10);
  ASSERT_TRUE(first->ReadUntil(10));
  v1::WatchEventsRequest request;
  request.set_start_cursor(first->events[6].cursor());
  first.reset();
  Append("a", 5);
  RestartOn(options_);
  auto second = Open(request);
  Append("a", 5);
  ASSERT_TRUE(second->ReadUntil(13));
  for (uint64_t i = 0; i < 13; ++i) {
    EXPECT_EQ(second->events[i].conversion().id(), i + 8);
    EXPECT_EQ(second->events[i].vm_sequence(), i + 8);
  }
}

TEST_F(EventJournalTest, AHistoryOnDiskIsReplayedWholeAndTurnsLive) {
  RestartOn(options_);
  Append("a", 20'000);
  v1::WatchEventsRequest request;
  request.set_start_cursor(journal_->OldestCursor());
  auto watch = Open(request);
  Append("a", 100);
  ASSERT_TRUE(watch->ReadUntil(20'100));
  for (uint64_t i = 0; i < 20'100; ++i) ASSERT_EQ(watch->events[i].conversion().id(), i + 1);
}

TEST_F(EventJournalTest, AFilterThatMatchesLittleFindsItInALongHistory) {
  RestartOn(options_);
  Append("often", 40'000);
  Append("rare", 1);
  Append("often", 1000);
  v1::ListEventsRequest list;
  list.mutable_filter()->set_vm("rare");
  const std::vector<v1::Event> listed = List(list);
  ASSERT_EQ(listed.size(), 1u);
  EXPECT_EQ(listed[0].conversion().id(), 40'001u);
  v1::WatchEventsRequest request;
  request.set_start_cursor(journal_->OldestCursor());
  *request.mutable_filter() = list.filter();
  auto watch = Open(request);
  ASSERT_TRUE(watch->ReadUntil(1));
  EXPECT_EQ(watch->events[0].conversion().id(), 40'001u);
}

TEST_F(EventJournalTest, AListHasWhatHappenedBeforeTheCall) {
  RestartOn(options_);
  for (int i = 0; i < 200; ++i) {
    Append("a", 1);
    v1::ListEventsRequest request;
    request.set_start_cursor(journal_->Cursor());
    (void)List(request);
    // Whatever was committed when the cursor was taken, all is now.
    EXPECT_EQ(journal_->Cursor(), journal_->CursorAt(static_cast<uint64_t>(i) + 1));
  }
}

TEST_F(EventJournalTest, AnExpiredCursorSaysWhereToBeginAndAListBeginsWithAGap) {
  options_.limits.max_events = 1000;
  RestartOn(options_);
  Append("a", 1);
  v1::WatchEventsRequest request;
  Eventually([&] { return journal_->Cursor() == journal_->CursorAt(1); });
  request.set_start_cursor(journal_->Cursor());
  Append("a", 9999);
  Eventually([&] { return journal_->stats().kept == 1000; });
  const grpc::Status status = Open(request)->reader->Finish();
  ExpectError(status, StatusCode::OUT_OF_RANGE, "CURSOR_EXPIRED");
  EXPECT_EQ(InfoOf(status).metadata().at("oldest_cursor"), journal_->CursorAt(9000));
  request.set_start_cursor(InfoOf(status).metadata().at("oldest_cursor"));
  auto watch = Open(request);
  ASSERT_TRUE(watch->ReadUntil(1000));
  EXPECT_EQ(watch->events[0].conversion().id(), 9001u);
  const std::vector<v1::Event> listed = List({});
  ASSERT_EQ(listed.size(), 1001u);
  EXPECT_EQ(listed[0].gap().count(), 9000u);
  EXPECT_EQ(listed[0].cursor(), journal_->CursorAt(9000));
}

TEST_F(EventJournalTest, AQuietWatchGetsABookmarkBeforeItsCursorExpires) {
  options_.limits.max_events = 1000;
  options_.notice = absl::Milliseconds(500);
  RestartOn(options_);
  v1::WatchEventsRequest request;
  request.mutable_filter()->set_vm("quiet");
  auto watch = Open(request);
  Append("a", 5000);
  ASSERT_TRUE(watch->ReadUntil(1));
  EXPECT_TRUE(watch->events[0].has_bookmark());
  watch.reset();
  Eventually([&] { return journal_->OldestCursor() != journal_->CursorAt(0); });
  request.set_start_cursor("");
  Append("quiet", 1);
  Eventually([&] { return journal_->Cursor() == journal_->CursorAt(5001); });
}

TEST_F(EventJournalTest, AWatchFromNowDoesNotTellWhatWasOnItsWayToTheDisk) {
  RestartOn(options_);
  for (int i = 0; i < 100; ++i) {
    Append("old", 50);
    auto watch = Open();
    Append("new", 1);
    ASSERT_TRUE(watch->ReadUntil(1));
    EXPECT_EQ(watch->events[0].vm(), "new");
  }
}

TEST_F(EventJournalTest, ManyWatchersOfOneJournalAreAllToldAll) {
  RestartOn(options_);
  std::vector<std::unique_ptr<Watch>> watches;
  for (int i = 0; i < 200; ++i) watches.push_back(Open());
  Append("a", 300);
  for (const auto& watch : watches) {
    ASSERT_TRUE(watch->ReadUntil(300));
    for (uint64_t i = 0; i < 300; ++i) ASSERT_EQ(watch->events[i].conversion().id(), i + 1);
  }
}

}  // namespace
}  // namespace twinroot::rpc
