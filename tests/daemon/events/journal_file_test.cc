// A journal in a file: restarts, disks that refuse, and what is removed when.
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <map>

#include "absl/strings/str_cat.h"
#include "daemon/status_reason.h"
#include "tests/daemon/events/journal_fixture.h"

namespace twinroot::events {
namespace {

using Started = v1::DaemonStarted;

// While it lives no file of this process grows: the disk is full.
class FullDisk {
 public:
  FullDisk() {
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit none = {64, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &none);
  }
  ~FullDisk() { setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_;
};

class JournalFile : public JournalFixture {};

TEST_F(JournalFile, ARestartKeepsEventsCursorsAndSequences) {
  Open();
  EXPECT_EQ(journal_->opening().previous_end(), Started::PREVIOUS_END_NONE);
  EXPECT_FALSE(journal_->opening().epoch_kept());
  Append(3, "a");
  Append(2, "b");
  Settle();
  const std::string end = journal_->Cursor();
  const std::string middle = ReadAll(*journal_, 0).events[1]->Parse().cursor();
  Open();
  EXPECT_EQ(journal_->opening().previous_end(), Started::PREVIOUS_END_CLEAN);
  EXPECT_TRUE(journal_->opening().epoch_kept());
  EXPECT_EQ(journal_->Cursor(), end);
  Append(1, "a");
  Settle();
  const auto position = journal_->PositionOf(middle, Journal::IfEmpty::kNow);
  ASSERT_TRUE(position.ok()) << position.status();
  const Told told = ReadAll(*journal_, *position);
  EXPECT_EQ(told.ids, (std::vector<uint64_t>{3, 4, 5, 6}));
  EXPECT_EQ(told.events.back()->Parse().vm_sequence(), 4u);
  EXPECT_EQ(told.missed, 0u);
}

TEST_F(JournalFile, AppendedEventsAreCommittedBeforeItIsClosed) {
  Open();
  Append(20'000);
  Open();
  EXPECT_EQ(ReadAll(*journal_, 0).ids.size(), 20'000u);
}

TEST_F(JournalFile, ADeletedVmsNameBeginsAnewAcrossARestart) {
  Open();
  Append(3, "a");
  v1::Event deleted;
  deleted.set_vm("a");
  deleted.mutable_vm_state()->set_deleted(true);
  journal_->Append(deleted);
  Open();
  Append(1, "a");
  Settle();
  EXPECT_EQ(ReadAll(*journal_, 0).events.back()->Parse().vm_sequence(), 1u);
}

TEST_F(JournalFile, ReadersSeeTheSameFromDiskAndFromMemory) {
  options_.in_memory = 100;
  Open();
  for (uint64_t i = 0; i < 5000; ++i) journal_->Append(EventOf(i % 50 == 7 ? "rare" : "often", i));
  Settle();
  EXPECT_TRUE(journal_->ReadsDisk(0));
  EXPECT_TRUE(journal_->ReadsDisk(4899));
  EXPECT_FALSE(journal_->ReadsDisk(4900));
  const Told all = ReadAll(*journal_, 0);
  ASSERT_EQ(all.ids.size(), 5000u);
  for (uint64_t i = 0; i < 5000; ++i) {
    ASSERT_EQ(all.ids[i], i);
    ASSERT_EQ(all.events[i]->Parse().cursor(), journal_->CursorAt(i + 1));
  }
  v1::EventFilter rare;
  rare.set_vm("rare");
  EXPECT_EQ(ReadAll(*journal_, 0, Filter(rare)).ids.size(), 100u);
  rare.add_kinds(v1::EVENT_KIND_VM_STATE);
  const Told none = ReadAll(*journal_, 0, Filter(rare));
  EXPECT_TRUE(none.ids.empty());
  EXPECT_EQ(none.next, 5000u);
  // A page that ends where it is told to.
  const Journal::Page page = journal_->Read(4890, 256, {}, 4910);
  EXPECT_EQ(page.events.size(), 20u);
  EXPECT_EQ(page.next, 4910u);
  EXPECT_FALSE(page.more);
}

TEST_F(JournalFile, WhatIsNoDatabaseIsSetAside) {
  Open();
  Append(10);
  Settle();
  const std::string cursor = journal_->Cursor();
  journal_.reset();
  FILE* file = fopen(options_.path.c_str(), "r+");
  ASSERT_NE(file, nullptr);
  fputs("this is no database", file);
  fclose(file);
  Open();
  EXPECT_EQ(SetAside(), 1);
  EXPECT_EQ(journal_->opening().previous_end(), Started::PREVIOUS_END_NONE);
  const auto position = journal_->PositionOf(cursor, Journal::IfEmpty::kNow);
  EXPECT_EQ(ReasonOf(position.status()), "CURSOR_OTHER_EPOCH");
  Append(1);
  Settle();
  EXPECT_EQ(ReadAll(*journal_, 0).ids.size(), 1u);
}

TEST_F(JournalFile, WhatCannotBeReadIsAGapAndReadersGetOn) {
  options_.in_memory = 10;
  Open();
  Append(20'000);
  Settle();
  journal_.reset();
  const auto size = std::filesystem::file_size(options_.path);
  FILE* file = fopen(options_.path.c_str(), "r+");
  ASSERT_NE(file, nullptr);
  fseek(file, static_cast<long>(size / 2 / 4096 * 4096), SEEK_SET);
  const std::string garbage(5 * 4096, '\xff');
  fwrite(garbage.data(), 1, garbage.size(), file);
  fclose(file);
  Open();  // closed well, so nobody looks at every page
  const Told told = ReadAll(*journal_, 0);
  EXPECT_EQ(told.next, 20'000u);
  EXPECT_GT(told.missed, 0u);
  EXPECT_EQ(told.ids.size() + told.missed, 20'000u);
  EXPECT_TRUE(std::is_sorted(told.ids.begin(), told.ids.end()));
}

TEST_F(JournalFile, AFullDiskDelaysEventsAndLosesNone) {
  Open();
  Append(5);
  Settle();
  std::atomic<bool> woken = false;
  const auto watcher =
      journal_->Subscribe([&] { woken = woken || journal_->Cursor() == journal_->CursorAt(105); });
  {
    FullDisk full;
    Append(100);
    Eventually([&] { return journal_->stats().failed_commits >= 2; });
    EXPECT_EQ(journal_->Cursor(), journal_->CursorAt(5));
    EXPECT_EQ(ReadAll(*journal_, 0).ids.size(), 5u);
    EXPECT_EQ(journal_->stats().waiting, 100u);
    // Nobody waits in vain.
    EXPECT_EQ(journal_->WaitCommitted(105, absl::InfiniteDuration()), 5u);
  }
  Settle();
  Eventually([&] { return woken.load(); });
  const Told told = ReadAll(*journal_, 0);
  EXPECT_EQ(told.ids.size(), 105u);
  EXPECT_EQ(told.missed, 0u);
  EXPECT_EQ(journal_->stats().lost, 0u);
}

TEST_F(JournalFile, WhatFindsNoRoomWhileTheDiskIsFullIsADurableGap) {
  options_.max_waiting = 50;
  Open();
  Append(5);
  Settle();
  {
    FullDisk full;
    Append(1);
    Eventually([&] { return journal_->stats().failed_commits >= 1; });
    Append(99);
    EXPECT_EQ(journal_->stats().lost, 50u);
  }
  Settle();
  Append(10);
  Settle();
  for (int round = 0; round < 2; ++round) {
    const Told told = ReadAll(*journal_, 0);
    EXPECT_EQ(told.gaps, 1u);
    EXPECT_EQ(told.missed, 50u);
    ASSERT_EQ(told.ids.size(), 65u);
    EXPECT_EQ(told.ids[54], 55u);
    EXPECT_EQ(told.ids[55], 106u);
    // The VM's sequence shows the same hole.
    EXPECT_EQ(told.events[55]->Parse().vm_sequence(), 106u);
    // A cursor from within the hole.
    EXPECT_EQ(ReadAll(*journal_, 60).missed, 45u);
    Open();
  }
}

TEST_F(JournalFile, AFullDiskAtTheEndLosesWhatWaitsAndSaysSo) {
  Open();
  Append(5);
  Settle();
  const std::string epoch = Epoch();
  {
    FullDisk full;
    Append(10);
    journal_.reset();
  }
  Open();
  EXPECT_EQ(Epoch(), epoch);
  EXPECT_EQ(journal_->opening().previous_end(), Started::PREVIOUS_END_KILLED);
  EXPECT_EQ(ReadAll(*journal_, 0).ids.size(), 5u);
}

TEST_F(JournalFile, TheOldestAreRemovedWhenThereAreTooMany) {
  options_.limits.max_events = 1000;
  options_.notice = absl::Milliseconds(1);
  options_.in_memory = 10;
  Open();
  Append(1);
  Settle();
  const std::string early = journal_->Cursor();
  Append(30'000);
  Settle();
  Eventually([&] { return journal_->stats().kept == 1000; });
  const auto gone = journal_->PositionOf(early, Journal::IfEmpty::kNow);
  EXPECT_EQ(gone.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(ReasonOf(gone.status()), "CURSOR_EXPIRED");
  EXPECT_EQ(MetadataOf(gone.status())["oldest_cursor"], journal_->CursorAt(29'001));
  EXPECT_EQ(journal_->OldestCursor(), journal_->CursorAt(29'001));
  const Told told = ReadAll(*journal_, 0);
  EXPECT_EQ(told.missed, 29'001u);
  EXPECT_EQ(told.ids.size(), 1000u);
  Open();
  EXPECT_EQ(journal_->OldestCursor(), journal_->CursorAt(29'001));
}

TEST_F(JournalFile, TheOldestAreRemovedWhenTheyAreTooOldButTheNewest) {
  options_.limits.max_age = absl::Milliseconds(50);
  options_.notice = absl::Milliseconds(1);
  Open();
  Append(2000);
  Settle();
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  Append(1);
  Settle();
  Eventually([&] { return journal_->stats().kept == 1; });
  // Even when it is too old itself: the place in the order must not be forgotten.
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  Open();
  EXPECT_EQ(End(), 2001u);
  Append(1);
  Settle();
  EXPECT_EQ(ReadAll(*journal_, 2001).ids, std::vector<uint64_t>{2002});
}

TEST_F(JournalFile, TheOldestAreRemovedWhenTheFileIsTooLarge) {
  options_.limits.max_bytes = 1 << 20;
  options_.notice = absl::Milliseconds(1);
  Open();
  for (int i = 0; i < 60; ++i) {
    Append(1000);
    Settle();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  Eventually([&] {
    Append(1);
    return journal_->stats().bytes > 0 && journal_->stats().bytes <= uint64_t{1} << 20 &&
           journal_->OldestCursor() != journal_->CursorAt(0);
  });
  EXPECT_GT(journal_->stats().kept, 2000u);
  EXPECT_LT(std::filesystem::file_size(options_.path), uint64_t{8} << 20);
}

TEST_F(JournalFile, WatchersAreToldBeforeEventsAreRemoved) {
  options_.limits.max_events = 100;
  options_.notice = absl::Milliseconds(300);
  Open();
  std::atomic<uint64_t> horizon = 0;
  std::atomic<bool> kept = false;
  const auto watcher = journal_->Subscribe([&] {
    if (horizon == 0 && journal_->horizon() != 0) {
      horizon = journal_->horizon();
      kept = journal_->OldestCursor() == journal_->CursorAt(0);
    }
  });
  Append(1000);
  Eventually([&] { return journal_->OldestCursor() != journal_->CursorAt(0); });
  EXPECT_GT(horizon, 0u);
  EXPECT_TRUE(kept);
  EXPECT_EQ(journal_->OldestCursor(), journal_->CursorAt(horizon));
}

TEST_F(JournalFile, ManyThreadsAppendAndManyReadWithoutHoleOrRepeat) {
  options_.in_memory = 100;
  Open();
  constexpr uint64_t kEach = 1000;
  constexpr int kThreads = 3;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (uint64_t id = 0; id < kEach; ++id) {
        journal_->Append(EventOf(absl::StrCat("vm", i), id));
        if (id % 100 == 0) std::this_thread::yield();
      }
    });
    threads.emplace_back([&] {
      std::map<std::string, uint64_t> sequences;
      uint64_t position = 0;
      while (position < kEach * kThreads) {
        const Journal::Page page = journal_->Read(position, 64, {});
        ASSERT_EQ(page.missed, 0u);
        for (const SharedEvent& sealed : page.events) {
          const v1::Event event = sealed->Parse();
          ASSERT_EQ(event.vm_sequence(), ++sequences[event.vm()]);
          ASSERT_EQ(event.cursor(), journal_->CursorAt(++position));
        }
        ASSERT_EQ(page.next, position);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace twinroot::events
