// Writes and watches a journal until it is killed, or until its input ends: then well. Says on its
// output, line by line, what every watcher was told before it goes on:
//   EPOCH e            KEPT 0|1
//   E w cursor id vm sequence     an event, to watcher w
//   G w from to count             a gap
//   O w oldest                    its cursor is out of range; it begins at the oldest
//   END cursor                    all is committed, and watchers have read it
// Arguments: PATH BOOT_ID SEED TROUBLE CURSOR..., a cursor for each watcher ("-": the beginning).
// TROUBLE: "none", or "disk": the disk refuses now and then, and little may wait for it or is kept.
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "daemon/events/journal.h"
#include "daemon/obs/log.h"
#include "daemon/status_reason.h"

namespace twinroot::events {
namespace {

using Random = std::mt19937_64;

// Only the last line may be cut off by a kill.
void Say(const std::string& text) {
  static std::mutex mutex;
  std::lock_guard lock(mutex);
  size_t written = 0;
  while (written < text.size()) {
    const ssize_t result = write(STDOUT_FILENO, text.data() + written, text.size() - written);
    if (result <= 0) _exit(3);
    written += static_cast<size_t>(result);
  }
}

void Sleep(Random& random, uint64_t most_microseconds) {
  std::this_thread::sleep_for(std::chrono::microseconds(random() % most_microseconds));
}

// Follows the journal as a client would, by cursors alone.
void Watch(const Journal& journal, int watcher, std::string cursor, uint64_t seed,
           const std::atomic<bool>& stop) {
  Random random(seed);
  if (cursor == "-") cursor.clear();
  const uint64_t patience = watcher % 2 == 0 ? 200 : 20'000;
  for (;;) {
    const bool last = stop;
    auto position = journal.PositionOf(cursor, Journal::IfEmpty::kBeginning);
    if (!position.ok()) {
      cursor = MetadataOf(position.status())["oldest_cursor"];
      Say(absl::StrCat("O ", watcher, " ", cursor, "\n"));
      continue;
    }
    const Journal::Page page = journal.Read(*position, 1 + random() % 256, {});
    std::string lines;
    if (page.missed > 0) {
      absl::StrAppend(&lines, "G ", watcher, " ", journal.CursorAt(page.missed_from), " ",
                      journal.CursorAt(page.missed_from + page.missed), " ", page.missed, "\n");
    }
    for (const SharedEvent& sealed : page.events) {
      const v1::Event event = sealed->Parse();
      absl::StrAppend(&lines, "E ", watcher, " ", event.cursor(), " ", event.conversion().id(), " ",
                      event.vm(), " ", event.vm_sequence(), "\n");
    }
    Say(lines);
    if (last && page.next == *position) return;
    cursor = journal.CursorAt(page.next);
    if (!last) Sleep(random, patience);
  }
}

// Bursts, and pauses in which everything is committed.
void Append(Journal& journal, uint64_t seed, const std::atomic<bool>& stop) {
  Random random(seed);
  while (!stop) {
    for (uint64_t left = random() % 500; left > 0; --left) {
      v1::Event event;
      event.set_vm(absl::StrCat("vm", random() % 3));
      event.mutable_conversion()->set_id(random());
      journal.Append(std::move(event));
    }
    Sleep(random, 10'000);
  }
}

void RefuseWrites(uint64_t seed, const std::atomic<bool>& stop) {
  Random random(seed);
  rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit none = {64, before.rlim_max};
  while (!stop) {
    Sleep(random, 100'000);
    setrlimit(RLIMIT_FSIZE, &none);
    Sleep(random, 50'000);
    setrlimit(RLIMIT_FSIZE, &before);
  }
}

int Run(const std::vector<std::string>& arguments) {
  obs::InitLog();  // not to the output
  signal(SIGXFSZ, SIG_IGN);
  const uint64_t seed = std::strtoull(arguments[2].c_str(), nullptr, 10);
  const bool trouble = arguments[3] == "disk";
  JournalOptions options;
  options.path = arguments[0];
  options.boot_id = arguments[1];
  options.in_memory = 200;
  options.notice = absl::Milliseconds(5);
  if (trouble) {
    options.max_waiting = 300;
    options.limits.max_events = 5000;
  }
  auto opened = Journal::Open(options);
  if (!opened.ok()) {
    std::fprintf(stderr, "%s\n", std::string(opened.status().message()).c_str());
    return 1;
  }
  Journal& journal = **opened;
  Say(absl::StrCat("EPOCH ", journal.Cursor().substr(0, 16), " KEPT ",
                   journal.opening().epoch_kept() ? 1 : 0, "\n"));
  std::atomic<bool> stop_appending = false;
  std::atomic<bool> stop_watching = false;
  std::vector<std::thread> appenders;
  appenders.emplace_back([&] { Append(journal, seed + 1, stop_appending); });
  appenders.emplace_back([&] { Append(journal, seed + 2, stop_appending); });
  if (trouble) appenders.emplace_back([&] { RefuseWrites(seed + 3, stop_appending); });
  std::vector<std::thread> watchers;
  for (size_t i = 4; i < arguments.size(); ++i) {
    watchers.emplace_back([&, i] {
      Watch(journal, static_cast<int>(i - 4), arguments[i], seed + 10 + i, stop_watching);
    });
  }
  char ignored;
  while (read(STDIN_FILENO, &ignored, 1) > 0) {
  }
  stop_appending = true;
  for (std::thread& thread : appenders) thread.join();
  const uint64_t end = *journal.PositionOf("", Journal::IfEmpty::kNow);
  while (journal.WaitCommitted(end, absl::Seconds(1)) != end) {
  }
  stop_watching = true;
  for (std::thread& thread : watchers) thread.join();
  Say(absl::StrCat("END ", journal.Cursor(), "\n"));
  opened->reset();
  return 0;
}

}  // namespace
}  // namespace twinroot::events

int main(int argc, char** argv) { return twinroot::events::Run({argv + 1, argv + argc}); }
