// A journal's file that somebody has damaged: it is opened or set aside, and reading it ends. If
// SQLite finds nothing wrong with it, or it was set aside, what is appended is there after a
// restart. (A file that was closed well is not searched for damage when it is opened: that reads
// all of it.)
//
// An input is a whole file, or (first byte even) changes of a good one, 4 bytes each: where, and
// what stands there now.
#include <spdlog/sinks/null_sink.h>
#include <spdlog/spdlog.h>
#include <stdlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "daemon/events/journal.h"
#include "daemon/events/sqlite.h"
#include "tests/fuzz/require.h"

namespace twinroot::events {
namespace {

using fuzz::Require;

constexpr int kAppended = 3;

class Folder {
 public:
  Folder() {
    // A disk would be asked to write through a few times for each input.
    std::string name = std::filesystem::exists("/dev/shm") ? "/dev/shm" : "/tmp";
    name += "/journal-fuzz-XXXXXX";
    Require(mkdtemp(name.data()) != nullptr, "a folder can be made");
    path_ = name;
    spdlog::set_default_logger(
        std::make_shared<spdlog::logger>("quiet", std::make_shared<spdlog::sinks::null_sink_mt>()));
  }
  ~Folder() { std::filesystem::remove_all(path_); }

  void Empty() const {
    for (const auto& file : std::filesystem::directory_iterator(path_)) {
      std::filesystem::remove(file);
    }
  }
  bool HasAside() const {
    for (const auto& file : std::filesystem::directory_iterator(path_)) {
      if (file.path().string().find(".aside-") != std::string::npos) return true;
    }
    return false;
  }
  std::string file() const { return path_ / "events.sqlite"; }

 private:
  std::filesystem::path path_;
};

const Folder& TheFolder() {
  static const Folder folder;
  return folder;
}

JournalOptions Options(const std::string& boot_id) {
  JournalOptions options;
  options.path = TheFolder().file();
  options.boot_id = boot_id;
  return options;
}

void Append(Journal& journal, const std::string& vm, int count) {
  for (int i = 0; i < count; ++i) {
    v1::Event event;
    event.set_vm(vm);
    event.mutable_conversion()->set_id(static_cast<uint64_t>(i) + 1);
    journal.Append(event);
  }
  const uint64_t end = journal.next();
  Require(journal.WaitCommitted(end, absl::Seconds(20)) == end, "what is appended is committed");
}

// Reads to the end, whatever the file says; the number of events of `vm`.
int Read(const Journal& journal, const std::string& vm) {
  uint64_t at = *journal.PositionOf("", Journal::IfEmpty::kBeginning);
  const uint64_t end = journal.next();
  int found = 0;
  for (;;) {
    const Journal::Page page = journal.Read(at, 256, {}, end);
    Require(page.next >= at && page.next <= end, "a page goes on, and not beyond the end");
    for (const SharedEvent& event : page.events) found += event->Parse().vm() == vm;
    if (page.next == at) return found;
    at = page.next;
  }
}

std::string GoodFile() {
  TheFolder().Empty();
  {
    auto journal = Journal::Open(Options("this boot"));
    Require(journal.ok(), "a journal is made");
    Append(**journal, "before", 40);
  }
  std::ifstream file(TheFolder().file(), std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string FileOf(const uint8_t* data, size_t size) {
  static const std::string good = GoodFile();
  if (data[0] & 1) return {reinterpret_cast<const char*>(data + 1), size - 1};
  std::string file = good;
  for (size_t at = 1; at + 4 <= size; at += 4) {
    const size_t place = data[at] | size_t{data[at + 1]} << 8 | size_t{data[at + 2] % 16u} << 16;
    // The upper bits: a change is one of a byte, or cuts the file off here.
    if (data[at + 2] >= 0xF0) {
      file.resize(place % good.size());
    } else if (!file.empty()) {
      file[place % file.size()] = static_cast<char>(data[at + 3]);
    }
  }
  return file;
}

bool IsSound() {
  auto database = Database::Open(TheFolder().file());
  if (!database.ok()) return false;
  const auto said = database->Text("PRAGMA quick_check(1)");
  return said.ok() && *said == "ok";
}

void Run(const uint8_t* data, size_t size) {
  const std::string bytes = FileOf(data, size);
  TheFolder().Empty();
  std::ofstream(TheFolder().file(), std::ios::binary) << bytes;
  const bool sound = IsSound();
  // After a crash of the host a file is looked at more closely.
  const std::string boot_id = data[0] & 2 ? "this boot" : "another boot";
  {
    const auto journal = Journal::Open(Options(boot_id));
    if (!journal.ok()) {
      Require(absl::IsFailedPrecondition(journal.status()) &&
                  journal.status().message().find(TheFolder().file()) != std::string_view::npos,
              "a refusal names the file: " + std::string(journal.status().message()));
      return;
    }
    Read(**journal, "before");
    if (!sound && !TheFolder().HasAside()) return;
    Append(**journal, "after", kAppended);
    Require(Read(**journal, "after") >= kAppended, "what was appended is told");
  }
  const auto again = Journal::Open(Options(boot_id));
  Require(again.ok(), "it opens a second time: " + std::string(again.status().message()));
  Require(Read(**again, "after") >= kAppended, "what was appended is there after a restart");
}

}  // namespace
}  // namespace twinroot::events

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size != 0) twinroot::events::Run(data, size);
  return 0;
}
