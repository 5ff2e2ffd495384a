#include "daemon/events/journal.h"

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "daemon/status_reason.h"
#include "gtest/gtest.h"

namespace twinroot::events {
namespace {

v1::Event EventOf(const std::string& vm, uint64_t id = 0) {
  v1::Event event;
  event.set_vm(vm);
  event.mutable_conversion()->set_id(id);
  return event;
}

Filter Only(const std::string& vm) {
  v1::EventFilter filter;
  filter.set_vm(vm);
  return Filter(filter);
}

uint64_t BeginningOf(const Journal& journal) {
  return journal.PositionOf("", Journal::IfEmpty::kBeginning).value();
}

TEST(Journal, EventsComeInTheOrderOfAppend) {
  Journal journal;
  for (uint64_t i = 0; i < 10; ++i) journal.Append(EventOf("a", i));
  const Journal::Page page = journal.Read(BeginningOf(journal), 100, {});
  ASSERT_EQ(page.events.size(), 10u);
  for (uint64_t i = 0; i < 10; ++i) EXPECT_EQ(page.events[i]->Parse().conversion().id(), i);
  EXPECT_EQ(page.missed, 0u);
  EXPECT_EQ(journal.CursorAt(page.next), journal.Cursor());
  EXPECT_GT(page.events[0]->Parse().time().seconds(), 0);
}

TEST(Journal, CursorOfAnEventNamesThePlaceAfterIt) {
  Journal journal;
  for (uint64_t i = 0; i < 3; ++i) journal.Append(EventOf("a", i));
  const Journal::Page all = journal.Read(BeginningOf(journal), 100, {});
  const auto position = journal.PositionOf(all.events[0]->Parse().cursor(), Journal::IfEmpty::kNow);
  ASSERT_TRUE(position.ok());
  const Journal::Page rest = journal.Read(*position, 100, {});
  ASSERT_EQ(rest.events.size(), 2u);
  EXPECT_EQ(rest.events[0]->Parse().conversion().id(), 1u);
}

TEST(Journal, ReadingFromTheBeginningTellsHowManyEventsAreGone) {
  Journal journal(4);
  for (uint64_t i = 0; i < 10; ++i) journal.Append(EventOf("a", i));
  const Journal::Page page = journal.Read(BeginningOf(journal), 100, {});
  EXPECT_EQ(page.missed_from, 0u);
  EXPECT_EQ(page.missed, 6u);
  ASSERT_EQ(page.events.size(), 4u);
  EXPECT_EQ(page.events[0]->Parse().conversion().id(), 6u);
}

TEST(Journal, EmptyCursorMeansTheBeginningOrNow) {
  Journal journal;
  journal.Append(EventOf("a"));
  EXPECT_EQ(*journal.PositionOf("", Journal::IfEmpty::kBeginning), 0u);
  EXPECT_EQ(*journal.PositionOf("", Journal::IfEmpty::kNow), 1u);
}

TEST(Journal, ReadStopsAtMaxAndGoesOnFromNext) {
  Journal journal;
  for (uint64_t i = 0; i < 5; ++i) journal.Append(EventOf("a", i));
  const Journal::Page first = journal.Read(0, 2, {});
  ASSERT_EQ(first.events.size(), 2u);
  const Journal::Page second = journal.Read(first.next, 10, {});
  ASSERT_EQ(second.events.size(), 3u);
  EXPECT_EQ(second.events[0]->Parse().conversion().id(), 2u);
}

TEST(Journal, FilterKeepsOneVmAndPassesTheOthers) {
  Journal journal;
  for (uint64_t i = 0; i < 3000; ++i) journal.Append(EventOf(i % 1500 == 7 ? "rare" : "often", i));
  const Journal::Page page = journal.Read(0, 256, Only("rare"));
  ASSERT_EQ(page.events.size(), 2u);
  EXPECT_EQ(page.events[1]->Parse().conversion().id(), 1507u);
  EXPECT_EQ(page.next, 3000u);
}

TEST(Journal, VmSequencesCountForEachVmFromOne) {
  Journal journal;
  journal.Append(EventOf("a"));
  journal.Append(EventOf("b"));
  journal.Append(EventOf("a"));
  journal.Append(EventOf(""));
  const Journal::Page page = journal.Read(0, 10, {});
  EXPECT_EQ(page.events[0]->Parse().vm_sequence(), 1u);
  EXPECT_EQ(page.events[1]->Parse().vm_sequence(), 1u);
  EXPECT_EQ(page.events[2]->Parse().vm_sequence(), 2u);
  EXPECT_EQ(page.events[3]->Parse().vm_sequence(), 0u);
}

TEST(Journal, ADeletedVmsNameBeginsAnew) {
  Journal journal;
  journal.Append(EventOf("a"));
  v1::Event deleted;
  deleted.set_vm("a");
  deleted.mutable_vm_state()->set_deleted(true);
  journal.Append(deleted);
  journal.Append(EventOf("a"));
  const Journal::Page page = journal.Read(0, 10, {});
  EXPECT_EQ(page.events[1]->Parse().vm_sequence(), 2u);
  EXPECT_EQ(page.events[2]->Parse().vm_sequence(), 1u);
}

TEST(Journal, KeepsTheLastOfItsCapacityAndCountsWhatWasMissed) {
  Journal journal(4);
  for (uint64_t i = 0; i < 10; ++i) journal.Append(EventOf("a", i));
  EXPECT_EQ(journal.stats().kept, 4u);
  const Journal::Page page = journal.Read(2, 100, {});
  EXPECT_EQ(page.missed, 4u);
  EXPECT_EQ(page.missed_from, 2u);
  ASSERT_EQ(page.events.size(), 4u);
  EXPECT_EQ(page.events[0]->Parse().conversion().id(), 6u);
  EXPECT_EQ(page.next, 10u);
}

TEST(Journal, CursorsStayGoodAcrossTheCapacityUntilTheirEventsAreGone) {
  Journal journal(4);
  journal.Append(EventOf("a"));
  const std::string early = journal.Cursor();
  for (uint64_t i = 0; i < 4; ++i) journal.Append(EventOf("a"));
  EXPECT_TRUE(journal.PositionOf(early, Journal::IfEmpty::kNow).ok());
  journal.Append(EventOf("a"));
  const auto gone = journal.PositionOf(early, Journal::IfEmpty::kNow);
  EXPECT_EQ(gone.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(ReasonOf(gone.status()), "CURSOR_EXPIRED");
  EXPECT_EQ(MetadataOf(gone.status())["oldest_cursor"], journal.OldestCursor());
  EXPECT_TRUE(journal.PositionOf(journal.OldestCursor(), Journal::IfEmpty::kNow).ok());
}

TEST(Journal, CursorOfAnotherEpochIsOutOfRange) {
  Journal journal;
  Journal other;
  const auto position = journal.PositionOf(other.Cursor(), Journal::IfEmpty::kNow);
  EXPECT_EQ(position.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(ReasonOf(position.status()), "CURSOR_OTHER_EPOCH");
  EXPECT_NE(position.status().message().find(journal.OldestCursor().c_str()),
            absl::string_view::npos);
}

TEST(Journal, CursorFromTheFutureIsOutOfRange) {
  Journal journal;
  journal.Append(EventOf("a"));
  const auto position = journal.PositionOf(journal.CursorAt(2), Journal::IfEmpty::kNow);
  EXPECT_EQ(position.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(ReasonOf(position.status()), "CURSOR_IN_FUTURE");
}

TEST(Journal, MalformedCursorsAreInvalid) {
  Journal journal;
  journal.Append(EventOf("a"));
  const std::string good = journal.Cursor();
  const std::string bad[] = {"x",
                             "-",
                             "1",
                             good + "x",
                             good + "-1",
                             " " + good,
                             "abc-1",
                             good.substr(0, 17) + "+1",
                             good.substr(0, 17) + "01",
                             good.substr(0, 17),
                             good.substr(0, 17) + "99999999999999999999"};
  for (const std::string& cursor : bad) {
    const auto position = journal.PositionOf(cursor, Journal::IfEmpty::kNow);
    EXPECT_EQ(position.status().code(), absl::StatusCode::kInvalidArgument) << cursor;
    EXPECT_EQ(ReasonOf(position.status()), "CURSOR_MALFORMED") << cursor;
  }
}

TEST(Journal, ObserverSeesEveryEventAsItWasGiven) {
  Journal journal(2);
  std::vector<uint64_t> ids;
  journal.SetObserver([&](const v1::Event& event) { ids.push_back(event.conversion().id()); });
  for (uint64_t i = 0; i < 5; ++i) journal.Append(EventOf("a", i));
  EXPECT_EQ(ids, (std::vector<uint64_t>{0, 1, 2, 3, 4}));
}

TEST(Journal, SubscriberMayReadFromItsCallback) {
  Journal journal;
  size_t seen = 0;
  const auto subscription =
      journal.Subscribe([&] { seen = journal.Read(0, 10, {}).events.size(); });
  journal.Append(EventOf("a"));
  EXPECT_EQ(seen, 1u);
}

TEST(Journal, SubscriberIsNeverCalledAfterItsHandleIsGone) {
  Journal journal;
  std::atomic<bool> stop{false};
  std::thread appender([&] {
    while (!stop) journal.Append(EventOf("a"));
  });
  for (int i = 0; i < 500; ++i) {
    auto alive = std::make_unique<std::atomic<bool>>(true);
    auto subscription = journal.Subscribe([&alive] { EXPECT_TRUE(*alive); });
    subscription.reset();
    *alive = false;
    alive.reset();
  }
  stop = true;
  appender.join();
}

TEST(Journal, ReadersAndWritersInManyThreadsMissNothing) {
  constexpr uint64_t kEach = 2000;
  constexpr int kWriters = 3;
  Journal journal(kEach * kWriters);
  std::vector<std::thread> writers;
  for (int writer = 0; writer < kWriters; ++writer) {
    writers.emplace_back([&journal, writer] {
      for (uint64_t i = 0; i < kEach; ++i) journal.Append(EventOf(absl::StrCat("vm", writer), i));
    });
  }
  uint64_t position = 0;
  std::map<std::string, uint64_t> sequences;
  uint64_t seen = 0;
  while (seen < kEach * kWriters) {
    const Journal::Page page = journal.Read(position, 64, {});
    ASSERT_EQ(page.missed, 0u);
    for (const SharedEvent& sealed : page.events) {
      const v1::Event event = sealed->Parse();
      ASSERT_EQ(event.vm_sequence(), ++sequences[event.vm()]);
      ASSERT_EQ(event.cursor(), journal.CursorAt(++seen));
    }
    position = page.next;
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(sequences.size(), static_cast<size_t>(kWriters));
}

}  // namespace
}  // namespace twinroot::events
