#include "daemon/events/store.h"

#include <cstdlib>
#include <filesystem>

#include "absl/strings/match.h"
#include "gtest/gtest.h"

namespace twinroot::events {
namespace {

using Started = v1::DaemonStarted;

class StoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string folder = ::testing::TempDir() + "/storeXXXXXX";
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
    path_ = folder_ + "/events.sqlite";
  }
  void TearDown() override {
    store_.reset();
    std::filesystem::remove_all(folder_);
  }

  void Open(const std::string& boot_id = "boot") {
    store_.reset();
    auto store = Store::Open(path_, boot_id);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  // Of which `count` are one hole if there are more than one.
  static Entry EntryAt(uint64_t position, uint64_t count = 1, const std::string& vm = "a") {
    Entry entry;
    entry.position = position;
    entry.count = count;
    entry.what = count == 1 ? Entry::What::kEvent : Entry::What::kLost;
    if (count == 1) {
      v1::Event event;
      event.set_vm(vm);
      event.mutable_conversion()->set_id(position);
      auto sealed = std::make_shared<SealedEvent>(event);
      sealed->Place(static_cast<int64_t>(1000 + position) * 1'000'000'000, position + 1, "");
      entry.event = std::move(sealed);
    }
    return entry;
  }
  void Add(uint64_t first, uint64_t count) {
    std::vector<Entry> entries;
    for (uint64_t i = 0; i < count; ++i) entries.push_back(EntryAt(first + i));
    ASSERT_TRUE(store_->Commit(entries).ok());
  }
  void RunSql(const std::string& sql) {
    auto database = Database::Open(path_);
    ASSERT_TRUE(database.ok()) << database.status();
    const absl::Status status = database->Run(sql);
    ASSERT_TRUE(status.ok()) << status;
  }
  bool IsSetAside() const {
    for (const auto& file : std::filesystem::directory_iterator(folder_)) {
      if (absl::StrContains(file.path().string(), ".aside-")) return true;
    }
    return false;
  }

  std::string folder_;
  std::string path_;
  std::unique_ptr<Store> store_;
};

TEST_F(StoreTest, AStoreThatWasClosedIsClean) {
  Open();
  EXPECT_EQ(store_->opening().previous_end, Started::PREVIOUS_END_NONE);
  EXPECT_FALSE(store_->opening().epoch_kept);
  const std::string epoch = store_->opening().epoch;
  Add(0, 3);
  ASSERT_TRUE(store_->Close().ok());
  Open("another boot");
  EXPECT_EQ(store_->opening().previous_end, Started::PREVIOUS_END_CLEAN);
  EXPECT_TRUE(store_->opening().epoch_kept);
  EXPECT_EQ(store_->opening().epoch, epoch);
  EXPECT_EQ(store_->opening().next, 3u);
  EXPECT_EQ(store_->opening().vm_sequences.at("a"), 3u);
}

TEST_F(StoreTest, AStoreThatWasNotClosedKeepsItsEpochInTheSameBootOnly) {
  Open();
  const std::string epoch = store_->opening().epoch;
  Add(0, 3);
  Open();
  EXPECT_EQ(store_->opening().previous_end, Started::PREVIOUS_END_KILLED);
  EXPECT_TRUE(store_->opening().epoch_kept);
  EXPECT_EQ(store_->opening().epoch, epoch);
  Open("another boot");
  EXPECT_EQ(store_->opening().previous_end, Started::PREVIOUS_END_HOST_DOWN);
  EXPECT_FALSE(store_->opening().epoch_kept);
  EXPECT_NE(store_->opening().epoch, epoch);
  // What is left is still told, under new cursors.
  EXPECT_EQ(store_->opening().next, 3u);
  const auto entries = store_->Read(0, 9, 9, {});
  ASSERT_TRUE(entries.ok());
  EXPECT_EQ(entries->back().event->Parse().cursor(), store_->opening().epoch + "-3");
}

TEST_F(StoreTest, AHostThatDoesNotTellItsBootHasAnotherOne) {
  Open("");
  Open("");
  EXPECT_EQ(store_->opening().previous_end, Started::PREVIOUS_END_HOST_DOWN);
}

TEST_F(StoreTest, ASecondOneIsRefused) {
  Open();
  const auto second = Store::Open(path_, "boot");
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(second.status().message(), "--state-dir of its own"));
  Add(0, 1);
}

TEST_F(StoreTest, AFolderThatCannotBeWrittenIsAClearError) {
  const auto missing = Store::Open(folder_ + "/no/events.sqlite", "boot");
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(missing.status().message(), "--state-dir"));
  std::filesystem::create_directory(path_);
  const auto folder = Store::Open(path_, "boot");
  EXPECT_EQ(folder.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(folder.status().message(), "cannot open the event journal"));
}

TEST_F(StoreTest, AnotherProgramsDatabaseIsSetAside) {
  RunSql("CREATE TABLE theirs (value)");
  Open();
  EXPECT_TRUE(IsSetAside());
  EXPECT_EQ(store_->opening().previous_end, Started::PREVIOUS_END_NONE);
}

TEST_F(StoreTest, ANewerVersionIsSetAside) {
  Open();
  ASSERT_TRUE(store_->Close().ok());
  store_.reset();
  RunSql("PRAGMA user_version = 2");
  Open();
  EXPECT_TRUE(IsSetAside());
}

TEST_F(StoreTest, TablesThatDoNotFitAreSetAside) {
  Open();
  store_.reset();
  RunSql("ALTER TABLE events RENAME TO others");
  Open();
  EXPECT_TRUE(IsSetAside());
}

TEST_F(StoreTest, AnUncleanStoreThatIsDamagedIsSetAside) {
  Open();
  for (int i = 0; i < 10; ++i) Add(1000 * i, 1000);
  store_.reset();  // without Close
  const auto size = std::filesystem::file_size(path_);
  FILE* file = fopen(path_.c_str(), "r+");
  ASSERT_NE(file, nullptr);
  fseek(file, static_cast<long>(size / 2 / 4096 * 4096), SEEK_SET);
  const std::string garbage(2 * 4096, '\xff');
  fwrite(garbage.data(), 1, garbage.size(), file);
  fclose(file);
  Open();
  EXPECT_TRUE(IsSetAside());
  EXPECT_EQ(store_->opening().next, 0u);
}

TEST_F(StoreTest, AnEmptyFileBecomesAStore) {
  fclose(fopen(path_.c_str(), "w"));
  Open();
  EXPECT_FALSE(IsSetAside());
  Add(0, 1);
}

TEST_F(StoreTest, ACommitIsRepeatedWithoutHarm) {
  Open();
  Add(0, 3);
  Add(1, 3);
  const auto entries = store_->Read(0, 99, 99, {});
  ASSERT_TRUE(entries.ok());
  ASSERT_EQ(entries->size(), 4u);
  EXPECT_EQ((*entries)[3].event->Parse().conversion().id(), 3u);
}

TEST_F(StoreTest, ReadBeginsInsideAHoleAndEndsBeforeTheEnd) {
  Open();
  Add(0, 2);
  ASSERT_TRUE(store_->Commit({EntryAt(2, 10), EntryAt(12)}).ok());
  const auto entries = store_->Read(5, 12, 99, {});
  ASSERT_TRUE(entries.ok());
  ASSERT_EQ(entries->size(), 1u);
  EXPECT_EQ((*entries)[0].what, Entry::What::kLost);
  EXPECT_EQ((*entries)[0].position, 2u);
  EXPECT_EQ((*entries)[0].end(), 12u);
  EXPECT_EQ(store_->Read(0, 99, 3, {})->size(), 3u);
}

TEST_F(StoreTest, ARowWhoseKindIsNotThatOfItsEventIsLost) {
  Open();
  Add(0, 4);
  RunSql("UPDATE events SET kind = 33 WHERE position = 1");
  RunSql("UPDATE events SET kind = -1 WHERE position = 2");
  v1::EventFilter conversions;
  conversions.add_kinds(v1::EVENT_KIND_CONVERSION);
  for (const v1::EventFilter& filter : {v1::EventFilter(), conversions}) {
    const auto entries = store_->Read(0, 99, 99, Filter(filter));
    ASSERT_TRUE(entries.ok());
    ASSERT_EQ(entries->size(), 4u);
    for (const size_t i : {0u, 3u}) EXPECT_EQ((*entries)[i].what, Entry::What::kEvent) << i;
    for (const size_t i : {1u, 2u}) EXPECT_EQ((*entries)[i].what, Entry::What::kLost) << i;
  }
}

TEST_F(StoreTest, AnEventOfALaterVersionIsToldWhole) {
  Open();
  Add(0, 2);
  RunSql("UPDATE events SET kind = 33, event = x'8a0200' WHERE position = 0");  // an empty field 33
  RunSql("UPDATE events SET kind = 0, event = x'' WHERE position = 1");
  const auto entries = store_->Read(0, 99, 99, {});
  ASSERT_TRUE(entries.ok());
  EXPECT_EQ((*entries)[0].what, Entry::What::kEvent);
  EXPECT_EQ((*entries)[0].event->kind(), v1::Event::KIND_NOT_SET);
  EXPECT_EQ((*entries)[1].what, Entry::What::kLost) << "nothing is no event";
  v1::EventFilter conversions;
  conversions.add_kinds(v1::EVENT_KIND_CONVERSION);
  EXPECT_EQ((*store_->Read(0, 99, 99, Filter(conversions)))[0].what, Entry::What::kLeftOut);
}

TEST_F(StoreTest, DropsStepByStepAndKeepsTheNewest) {
  Open();
  Add(0, 10);
  EXPECT_EQ(*store_->DropBefore(5, 3), 3u);
  EXPECT_EQ(*store_->DropBefore(5, 3), 5u);
  EXPECT_EQ(*store_->DropBefore(5, 3), 5u);
  EXPECT_EQ(*store_->DropBefore(100, 100), 9u);
}

TEST_F(StoreTest, ExpiredLooksAtSoManyOfTheOldest) {
  Open();
  Add(0, 10);
  EXPECT_EQ(*store_->Expired(absl::FromUnixSeconds(1000), 100), 0u);
  EXPECT_EQ(*store_->Expired(absl::FromUnixSeconds(1004), 100), 4u);
  EXPECT_EQ(*store_->Expired(absl::FromUnixSeconds(9999), 6), 6u);
}

TEST_F(StoreTest, NamesWhoseEventsAreGoneBeginAnew) {
  Open();
  Add(0, 3);
  ASSERT_TRUE(store_->Commit({EntryAt(3, 1, "b")}).ok());
  EXPECT_EQ(*store_->DropBefore(3, 100), 3u);
  Open();
  EXPECT_FALSE(store_->opening().vm_sequences.contains("a"));
  EXPECT_EQ(store_->opening().vm_sequences.at("b"), 4u);
}

}  // namespace
}  // namespace twinroot::events
