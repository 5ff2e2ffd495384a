// A journal in a file of its own, and readers that check what journals promise.
#ifndef TWINROOT_TESTS_DAEMON_EVENTS_JOURNAL_FIXTURE_H_
#define TWINROOT_TESTS_DAEMON_EVENTS_JOURNAL_FIXTURE_H_

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "daemon/events/journal.h"
#include "gtest/gtest.h"

namespace twinroot::events {

inline v1::Event EventOf(const std::string& vm, uint64_t id = 0) {
  v1::Event event;
  event.set_vm(vm);
  event.mutable_conversion()->set_id(id);
  return event;
}

// Everything that a reader is told from a position on: the ids of events, and how many are missed.
struct Told {
  std::vector<uint64_t> ids;
  std::vector<SharedEvent> events;
  uint64_t missed = 0;
  uint64_t gaps = 0;
  uint64_t next = 0;
};

// Reads to the end; what is told joins without a hole.
inline Told ReadAll(const Journal& journal, uint64_t position, const Filter& filter = {}) {
  Told told;
  told.next = position;
  for (;;) {
    const Journal::Page page = journal.Read(told.next, 256, filter);
    if (page.missed > 0) {
      EXPECT_GE(page.missed_from, told.next);
      ++told.gaps;
    }
    told.missed += page.missed;
    for (const SharedEvent& event : page.events) {
      told.ids.push_back(event->Parse().conversion().id());
      told.events.push_back(event);
    }
    if (page.next == told.next) {
      EXPECT_FALSE(page.more);
      return told;
    }
    told.next = page.next;
  }
}

// A test's own time limit ends a wait in vain.
template <typename Condition>
void Eventually(Condition condition) {
  while (!condition()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

class JournalFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string folder = ::testing::TempDir() + "/journalXXXXXX";
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
    options_.path = folder_ + "/events.sqlite";
    options_.boot_id = "this boot";
  }
  void TearDown() override {
    journal_.reset();
    std::filesystem::remove_all(folder_);
  }

  void Open() {
    journal_.reset();
    auto journal = Journal::Open(options_);
    ASSERT_TRUE(journal.ok()) << journal.status();
    journal_ = *std::move(journal);
  }
  void Append(uint64_t count, const std::string& vm = "a") {
    for (uint64_t i = 0; i < count; ++i) journal_->Append(EventOf(vm, ++last_id_));
  }
  uint64_t End() const { return *journal_->PositionOf("", Journal::IfEmpty::kNow); }
  void Settle() {
    const uint64_t end = End();
    Eventually([&] { return journal_->WaitCommitted(end, absl::Seconds(1)) == end; });
  }
  std::string Epoch() const { return journal_->Cursor().substr(0, 16); }
  // Files beside the journal that were set aside.
  int SetAside() const {
    int count = 0;
    for (const auto& file : std::filesystem::directory_iterator(folder_)) {
      const std::string name = file.path().filename();
      count += name.find(".aside-") != std::string::npos && !name.ends_with("-wal") &&
               !name.ends_with("-shm");
    }
    return count;
  }

  std::string folder_;
  JournalOptions options_;
  std::unique_ptr<Journal> journal_;
  uint64_t last_id_ = 0;
};

}  // namespace twinroot::events

#endif  // TWINROOT_TESTS_DAEMON_EVENTS_JOURNAL_FIXTURE_H_
