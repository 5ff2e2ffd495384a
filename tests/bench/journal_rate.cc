// How fast the event journal is beside the bare library: rows committed and read again a second,
// and how long an idle journal takes from Append until a watcher is woken.
//   bazel run -c opt //tests/bench:journal
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <string>
#include <vector>

#include "daemon/events/journal.h"
#include "daemon/events/sqlite.h"

namespace twinroot::events {
namespace {

constexpr uint64_t kEvents = 400'000;
constexpr uint64_t kBatch = 4096;
constexpr int kIdle = 2000;
constexpr int kRounds = 5;

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

v1::Event Conversion(uint64_t id) {
  v1::Event event;
  event.set_vm("benchmark");
  v1::Conversion* conversion = event.mutable_conversion();
  conversion->set_id(id);
  conversion->set_vcpu(0);
  conversion->set_gpa(id << 12);
  conversion->set_size(4096);
  conversion->set_direction(v1::Conversion::DIRECTION_TO_SHARED);
  conversion->set_cause(v1::Conversion::CAUSE_IMPLICIT);
  conversion->set_decision(v1::Conversion::DECISION_APPLIED);
  conversion->set_decider(v1::Conversion::DECIDER_POLICY);
  conversion->mutable_latency()->set_nanos(63'000);
  return event;
}

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  std::exit(1);
}

// The same rows, ready made, in transactions of a fixed size.
double BareRows(const std::string& path) {
  v1::Event event = Conversion(1);
  event.set_cursor("0123456789abcdef-123456");
  event.set_vm_sequence(123456);
  event.mutable_time()->set_seconds(1'700'000'000);
  event.mutable_time()->set_nanos(123'456'789);
  const std::string bytes = event.SerializeAsString();
  const std::string vm = event.vm();
  auto database = Database::Open(path);
  Check(database.status());
  Check(database->Run("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"));
  Check(
      database->Run("CREATE TABLE events (position INTEGER PRIMARY KEY, count INTEGER NOT NULL, "
                    "time INTEGER NOT NULL, vm TEXT NOT NULL, kind INTEGER NOT NULL, event BLOB)"));
  auto insert = database->Prepare("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)");
  Check(insert.status());
  const auto begin = Clock::now();
  for (uint64_t at = 0; at < kEvents;) {
    Check(database->Transact([&] {
      for (uint64_t i = 0; i < kBatch && at < kEvents; ++i, ++at) {
        insert->Bind(1, at).Bind(2, 1).Bind(3, 1'700'000'000'123'456'789).BindText(4, vm);
        absl::Status status = insert->Bind(5, 11).BindBytes(6, bytes).Run();
        if (!status.ok()) return status;
      }
      return absl::OkStatus();
    }));
  }
  return kEvents / SecondsSince(begin);
}

// Every column of every row, and nothing done with it.
double BareReads(const std::string& path) {
  auto database = Database::Open(path);
  Check(database.status());
  auto read = database->Prepare(
      "SELECT position, count, vm, kind, event FROM events WHERE position >= ? ORDER BY position");
  Check(read.status());
  const auto begin = Clock::now();
  uint64_t bytes = 0, rows = 0;
  read->Bind(1, 0);
  for (;;) {
    const auto row = read->Step();
    Check(row.status());
    if (!*row) break;
    ++rows;
    bytes += read->Number(0) + read->Number(1) + read->Number(3) + read->Bytes(2).size();
    for (const char c : read->Bytes(4)) bytes += static_cast<unsigned char>(c);
  }
  const double rate = static_cast<double>(rows) / SecondsSince(begin);
  if (rows != kEvents || bytes == 0) std::abort();
  return rate;
}

double JournalReads(const std::string& path) {
  JournalOptions options;
  options.path = path;
  auto journal = Journal::Open(options);
  Check(journal.status());
  const auto begin = Clock::now();
  uint64_t position = 0, events = 0;
  for (;;) {
    const Journal::Page page = (*journal)->Read(position, 255, {});
    if (page.next == position) break;
    events += page.events.size();
    position = page.next;
  }
  if (events != kEvents) std::abort();
  return kEvents / SecondsSince(begin);
}

double JournalRows(const std::string& path) {
  JournalOptions options;
  options.path = path;
  options.max_waiting = kEvents;
  auto journal = Journal::Open(options);
  Check(journal.status());
  const auto begin = Clock::now();
  for (uint64_t i = 0; i < kEvents; ++i) (*journal)->Append(Conversion(i));
  (*journal)->WaitCommitted(kEvents, absl::Minutes(5));
  return kEvents / SecondsSince(begin);
}

// Microseconds from Append until a watcher is woken, one event at a time, sorted.
std::vector<double> IdleDelays(const std::string& path) {
  JournalOptions options;
  options.path = path;
  auto journal = Journal::Open(options);
  Check(journal.status());
  std::mutex mutex;
  std::condition_variable woken;
  int wakes = 0;
  const auto watcher = (*journal)->Subscribe([&] {
    std::lock_guard lock(mutex);
    ++wakes;
    woken.notify_one();
  });
  std::vector<double> delays;
  for (int i = 0; i < kIdle; ++i) {
    std::unique_lock lock(mutex);
    wakes = 0;
    const auto begin = Clock::now();
    lock.unlock();
    (*journal)->Append(Conversion(static_cast<uint64_t>(i)));
    lock.lock();
    woken.wait(lock, [&] { return wakes > 0; });
    delays.push_back(SecondsSince(begin) * 1e6);
  }
  std::sort(delays.begin(), delays.end());
  return delays;
}

double MedianOf(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void Run() {
  std::string folder = std::filesystem::temp_directory_path() / "journal_rateXXXXXX";
  if (mkdtemp(folder.data()) == nullptr) std::exit(1);
  std::vector<double> bare, ours, bare_reads, our_reads;
  for (int i = 0; i < kRounds; ++i) {
    const std::string round = std::to_string(i);
    bare.push_back(BareRows(folder + "/bare" + round));
    ours.push_back(JournalRows(folder + "/journal" + round));
    bare_reads.push_back(BareReads(folder + "/bare" + round));
    our_reads.push_back(JournalReads(folder + "/journal" + round));
  }
  const double floor = MedianOf(bare), rate = MedianOf(ours);
  std::printf("bare SQLite, %lu rows a commit  %9.0f rows/s\n", kBatch, floor);
  std::printf("journal                         %9.0f rows/s  %.2fx\n", rate, rate / floor);
  const double read_floor = MedianOf(bare_reads), read_rate = MedianOf(our_reads);
  std::printf("bare SQLite, read               %9.0f rows/s\n", read_floor);
  std::printf("journal, read                   %9.0f rows/s  %.2fx\n", read_rate,
              read_rate / read_floor);
  const std::vector<double> delays = IdleDelays(folder + "/idle");
  std::printf("idle journal, Append to wake    median %.0f us, 99%% %.0f us\n",
              delays[delays.size() / 2], delays[delays.size() * 99 / 100]);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace twinroot::events

int main() { twinroot::events::Run(); }
