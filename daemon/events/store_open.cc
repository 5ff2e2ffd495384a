// How a journal's file is found, proved good or set aside, and marked as open.
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "daemon/events/cursor.h"
#include "daemon/events/store.h"
#include "spdlog/spdlog.h"

namespace twinroot::events {
namespace {

constexpr uint64_t kApplicationId = 0x54776e72;  // "Twnr"
constexpr uint64_t kVersion = 1;

constexpr char kSchema[] = R"(
  CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    count INTEGER NOT NULL,      -- of positions; more than one: lost events in a row
    time INTEGER NOT NULL,       -- nanoseconds since 1970
    vm TEXT NOT NULL,
    kind INTEGER NOT NULL,       -- the field of Event.kind
    event BLOB);                 -- twinroot.v1.Event; its cursor is the position's. NULL: lost
  CREATE TABLE vms (
    name TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL,   -- of its newest event
    position INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE journal (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    clean INTEGER NOT NULL);
)";

absl::Status Create(Database& database) {
  return database.Transact([&] {
    return database.Run(absl::StrCat(kSchema, "INSERT INTO journal VALUES (1, '', '', 1);",
                                     "PRAGMA application_id=", kApplicationId,
                                     ";PRAGMA user_version=", kVersion));
  });
}

// Is this a journal of ours? A file without tables becomes one.
absl::Status CheckSchema(Database& database) {
  const auto application = database.Number("PRAGMA application_id");
  if (!application.ok()) return application.status();
  const auto version = database.Number("PRAGMA user_version");
  if (!version.ok()) return version.status();
  if (*application == kApplicationId && *version == kVersion) return absl::OkStatus();
  if (*application == kApplicationId) {
    return absl::DataLossError(
        absl::StrCat("it has version ", *version, ", and this hvd knows version ", kVersion));
  }
  const auto tables = database.Number("SELECT count(*) FROM sqlite_master");
  if (!tables.ok()) return tables.status();
  if (*tables != 0) return absl::DataLossError("it is another program's database");
  return Create(database);
}

// Moves the file and SQLite's own beside it out of the way.
absl::Status SetAside(const std::string& path, const absl::Status& why) {
  const std::string aside = absl::StrCat(
      path, ".aside-", absl::FormatTime("%Y%m%dT%H%M%E3SZ", absl::Now(), absl::UTCTimeZone()));
  for (const char* suffix : {"", "-wal", "-shm"}) {
    std::error_code failed;
    std::filesystem::rename(path + suffix, aside + suffix, failed);
    if (failed && failed != std::errc::no_such_file_or_directory) {
      return absl::FailedPreconditionError(absl::StrCat(
          "the event journal ", path, suffix, " is unusable (", std::string(why.message()),
          ") and cannot be moved out of the way: ", failed.message(), "; move it by hand"));
    }
  }
  spdlog::error("the event journal {} is unusable: {}; it is now {}, and a new one begins", path,
                std::string(why.message()), aside);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Store>> Store::Open(const std::string& path,
                                                   const std::string& boot_id) {
  absl::StatusOr<StoreLock> lock = StoreLock::Take(path);
  if (!lock.ok()) return lock.status();
  auto store = OpenFile(path, boot_id, &*lock);
  if (absl::IsDataLoss(store.status())) {
    if (absl::Status status = SetAside(path, store.status()); !status.ok()) return status;
    store = OpenFile(path, boot_id, &*lock);
  }
  if (!store.ok()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "cannot open the event journal ", path, ": ", std::string(store.status().message()),
        "; make it writable for hvd's user and the disk not full, or choose another "
        "folder with --state-dir"));
  }
  return store;
}

absl::StatusOr<std::unique_ptr<Store>> Store::OpenFile(const std::string& path,
                                                       const std::string& boot_id,
                                                       StoreLock* lock) {
  absl::StatusOr<Database> writer = Database::Open(path);
  if (!writer.ok()) return writer.status();
  if (absl::Status status = CheckSchema(*writer); !status.ok()) return status;
  // The log's file does not stay larger than this.
  for (const char* pragma : {"PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL",
                             "PRAGMA journal_size_limit=16777216"}) {
    if (absl::Status status = writer->Run(pragma); !status.ok()) return status;
  }
  absl::StatusOr<Database> reader = Database::Open(path);
  if (!reader.ok()) return reader.status();
  if (absl::Status status = reader->Run("PRAGMA query_only=1"); !status.ok()) return status;
  std::unique_ptr<Store> store(new Store(*std::move(writer), *std::move(reader)));
  if (absl::Status status = store->Load(boot_id); !status.ok()) return status;
  if (absl::Status status = store->Prepare(); !status.ok()) return status;
  store->lock_.emplace(std::move(*lock));
  return store;
}

absl::Status Store::Load(const std::string& boot_id) {
  absl::StatusOr<Statement> journal =
      writer_.Prepare("SELECT epoch, boot_id, clean FROM journal WHERE id = 1");
  if (!journal.ok()) return journal.status();
  const absl::StatusOr<bool> row = journal->Step();
  if (!row.ok()) return row.status();
  if (!*row) return absl::DataLossError("it does not say its epoch");
  opening_.epoch = journal->Bytes(0);
  const bool same_boot = !boot_id.empty() && journal->Bytes(1) == boot_id;
  const bool clean = journal->Number(2) != 0;
  journal->Reset();

  if (opening_.epoch.empty()) {
    opening_.previous_end = v1::DaemonStarted::PREVIOUS_END_NONE;
  } else if (!IsEpoch(opening_.epoch)) {
    return absl::DataLossError("its epoch is none");
  } else {
    opening_.previous_end = clean       ? v1::DaemonStarted::PREVIOUS_END_CLEAN
                            : same_boot ? v1::DaemonStarted::PREVIOUS_END_KILLED
                                        : v1::DaemonStarted::PREVIOUS_END_HOST_DOWN;
  }
  if (!clean) {
    const absl::StatusOr<std::string> check = writer_.Text("PRAGMA quick_check(1)");
    if (!check.ok()) return check.status();
    if (*check != "ok") return absl::DataLossError(*check);
  }
  opening_.epoch_kept = clean || same_boot;
  if (opening_.previous_end == v1::DaemonStarted::PREVIOUS_END_NONE) opening_.epoch_kept = false;
  if (!opening_.epoch_kept) opening_.epoch = NewEpoch();

  const auto first = writer_.Number("SELECT min(position) FROM events");
  if (!first.ok()) return first.status();
  const auto next =
      writer_.Number("SELECT position + count FROM events ORDER BY position DESC LIMIT 1");
  if (!next.ok()) return next.status();
  opening_.first = *first;
  opening_.next = *next;
  // Names whose events are all gone begin anew: there is no cursor that could show a hole.
  if (absl::Status status =
          writer_.Run(absl::StrCat("DELETE FROM vms WHERE position < ", opening_.first));
      !status.ok()) {
    return status;
  }
  absl::StatusOr<Statement> vms = writer_.Prepare("SELECT name, sequence FROM vms");
  if (!vms.ok()) return vms.status();
  for (;;) {
    const absl::StatusOr<bool> vm = vms->Step();
    if (!vm.ok()) return vm.status();
    if (!*vm) break;
    opening_.vm_sequences[std::string(vms->Bytes(0))] = vms->Number(1);
  }
  absl::StatusOr<Statement> mark =
      writer_.Prepare("UPDATE journal SET epoch = ?, boot_id = ?, clean = 0");
  if (!mark.ok()) return mark.status();
  if (absl::Status status = writer_.Run("PRAGMA synchronous=FULL"); !status.ok()) return status;
  if (absl::Status status = mark->BindText(1, opening_.epoch).BindText(2, boot_id).Run();
      !status.ok()) {
    return status;
  }
  // In the file itself and on the disk before anybody sees an event: whatever is lost of the log of
  // SQLite, the mark is not.
  if (absl::Status status = writer_.Run("PRAGMA wal_checkpoint(TRUNCATE)"); !status.ok()) {
    return status;
  }
  return writer_.Run("PRAGMA synchronous=NORMAL");
}

absl::Status Store::Close() {
  for (const char* sql : {"PRAGMA synchronous=FULL", "UPDATE journal SET clean = 1",
                          "PRAGMA wal_checkpoint(TRUNCATE)"}) {
    if (absl::Status status = writer_.Run(sql); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace twinroot::events
