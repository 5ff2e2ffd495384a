// Whatever happens to the journal's process, every watcher is told every event once and in order,
// or a gap that counts what is missing, or that its cursor is out of range; and no cursor ever
// names two events.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <map>
#include <random>
#include <sstream>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "daemon/events/cursor.h"
#include "tests/daemon/events/journal_fixture.h"

namespace twinroot::events {
namespace {

constexpr char kChild[] = "tests/daemon/events/journal_child";
constexpr int kWatchers = 4;

// What one journal's life looks like from outside, over many processes.
class History {
 public:
  explicit History(bool gaps_allowed) : gaps_allowed_(gaps_allowed) {}

  const std::vector<std::string>& cursors() const { return cursors_; }
  const std::string& epoch() const { return epoch_; }
  uint64_t events() const { return seen_.size(); }
  uint64_t deliveries() const { return deliveries_; }
  uint64_t gaps() const { return gaps_; }

  // One line of the child; `kept`: the epoch must be the one before.
  void Take(const std::string& line, bool kept) {
    SCOPED_TRACE(line);
    std::istringstream words(line);
    std::string what;
    words >> what;
    if (what == "EPOCH") {
      std::string epoch, ignored;
      int says_kept = 0;
      words >> epoch >> ignored >> says_kept;
      if (!epoch_.empty()) {
        EXPECT_EQ(epoch == epoch_, kept);
        EXPECT_EQ(says_kept, kept ? 1 : 0);
      }
      epoch_ = epoch;
    } else if (what == "END") {
      std::string end;
      words >> end;
      for (const std::string& cursor : cursors_) EXPECT_EQ(cursor, end);
    } else {
      size_t watcher = 0;
      words >> watcher;
      Told(what, words, cursors_.at(watcher));
    }
  }

 private:
  void Told(const std::string& what, std::istringstream& words, std::string& cursor) {
    // Who has no cursor begins with the epoch.
    const std::string begin = cursor == "-" ? CursorText(epoch_, 0) : cursor;
    const auto before = ParseCursor(begin);
    ASSERT_TRUE(before.has_value());
    std::string to;
    if (what == "E") {
      uint64_t id = 0, sequence = 0;
      std::string vm;
      words >> to >> id >> vm >> sequence;
      const auto after = ParseCursor(to);
      ASSERT_TRUE(after.has_value());
      EXPECT_EQ(after->epoch, epoch_);
      // The very next one.
      EXPECT_EQ(after->position, before->position + 1);
      const auto [known, first] = seen_.try_emplace(to, id, vm, sequence);
      EXPECT_EQ(known->second, std::make_tuple(id, vm, sequence)) << "one cursor, two events";
      ++deliveries_;
    } else if (what == "G") {
      std::string from;
      uint64_t count = 0;
      words >> from >> to >> count;
      EXPECT_TRUE(gaps_allowed_);
      EXPECT_EQ(from, begin);
      EXPECT_EQ(ParseCursor(to)->position, ParseCursor(from)->position + count);
      ++gaps_;
    } else {
      ASSERT_EQ(what, "O");
      words >> to;
      const auto after = ParseCursor(to);
      ASSERT_TRUE(after.has_value());
      // Another epoch, or too old: not merely somewhere else.
      EXPECT_TRUE(before->epoch != epoch_ || after->position > before->position);
    }
    cursor = to;
  }

  const bool gaps_allowed_;
  std::string epoch_;
  std::vector<std::string> cursors_ = std::vector<std::string>(kWatchers, "-");
  std::map<std::string, std::tuple<uint64_t, std::string, uint64_t>> seen_;
  uint64_t deliveries_ = 0;
  uint64_t gaps_ = 0;
};

// One process that writes and watches.
class Child {
 public:
  Child(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), kChild);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    int in[2], out[2];
    if (pipe(in) != 0 || pipe(out) != 0) std::abort();
    pid_ = fork();
    if (pid_ == 0) {
      dup2(in[0], STDIN_FILENO);
      dup2(out[1], STDOUT_FILENO);
      for (const int fd : {in[0], in[1], out[0], out[1]}) close(fd);
      execv(kChild, argv.data());
      _exit(127);
    }
    close(in[0]);
    close(out[1]);
    in_ = in[1];
    out_ = fdopen(out[0], "r");
  }

  // Hands every whole line to `take`, and after `lines` of them ends the child in this way.
  enum class End { kKill, kWell };
  template <typename Take>
  int Follow(uint64_t lines, End end, Take take) {
    char* line = nullptr;
    size_t size = 0;
    ssize_t length = 0;
    while ((length = getline(&line, &size, out_)) > 0) {
      if (line[length - 1] != '\n') break;  // cut off by the kill: nobody was told
      take(std::string(line, static_cast<size_t>(length - 1)));
      if (lines == 0) continue;
      if (--lines > 0) continue;
      if (end == End::kKill) kill(pid_, SIGKILL);
      if (in_ >= 0) close(std::exchange(in_, -1));
    }
    free(line);
    fclose(out_);
    if (in_ >= 0) close(in_);
    int status = 0;
    waitpid(pid_, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  pid_t pid_ = -1;
  int in_ = -1;
  FILE* out_ = nullptr;
};

class JournalProperty : public JournalFixture {
 protected:
  void Live(History& history, const std::string& trouble, int processes, uint64_t seed) {
    std::mt19937_64 random(seed);
    std::string boot = "boot0";
    std::string next_boot = boot;
    for (int i = 0; i < processes; ++i) {
      const bool kept = next_boot == boot || ended_well_;
      boot = next_boot;
      std::vector<std::string> arguments = {options_.path, boot, std::to_string(random()), trouble};
      arguments.insert(arguments.end(), history.cursors().begin(), history.cursors().end());
      const bool kill = i + 1 < processes && random() % 4 != 0;
      const int code =
          Child(arguments).Follow(1 + random() % 4000, kill ? Child::End::kKill : Child::End::kWell,
                                  [&](const std::string& line) { history.Take(line, kept); });
      EXPECT_EQ(code, kill ? 128 + SIGKILL : 0);
      ended_well_ = !kill;
      if (random() % 6 == 0) {
        next_boot = absl::StrCat("boot", i + 1);
        // The host goes down, and what was not on the disk is lost: all since the last checkpoint.
        if (kill) {
          std::filesystem::remove(options_.path + "-wal");
          std::filesystem::remove(options_.path + "-shm");
        }
      }
      if (HasFailure()) return;
    }
  }

  bool ended_well_ = false;
};

TEST_F(JournalProperty, EveryEventIsToldOnceInOrderWhoeverIsKilled) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  History history(/*gaps_allowed=*/false);
  Live(history, "none", 15, seed);
  std::printf("%lu events, %lu deliveries\n", history.events(), history.deliveries());
  EXPECT_GT(history.events(), 1000u);
  EXPECT_EQ(SetAside(), 0);
}

TEST_F(JournalProperty, OnADiskThatRefusesNowAndThenGapsStandForWhatIsLost) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  History history(/*gaps_allowed=*/true);
  Live(history, "disk", 25, seed);
  std::printf("%lu events, %lu deliveries, %lu gaps\n", history.events(), history.deliveries(),
              history.gaps());
  EXPECT_GT(history.events(), 1000u);
}

}  // namespace
}  // namespace twinroot::events
