#include "daemon/watchdog.h"

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace twinroot {
namespace {

constexpr absl::Duration kPeriod = absl::Milliseconds(10);
constexpr char kPing[] = "WATCHDOG=1\nSTATUS=well";

// A part that answers at once, or keeps the answers until it is let go.
class Part {
 public:
  void Ask(std::function<void()> done) {
    std::lock_guard lock(mutex_);
    ++asked_;
    if (stuck_) {
      held_.push_back(std::move(done));
    } else {
      done();
    }
  }
  void Stick() {
    std::lock_guard lock(mutex_);
    stuck_ = true;
  }
  void LetGo() {
    std::lock_guard lock(mutex_);
    stuck_ = false;
    for (const auto& done : std::exchange(held_, {})) done();
  }
  int asked() {
    std::lock_guard lock(mutex_);
    return asked_;
  }

 private:
  std::mutex mutex_;
  bool stuck_ = false;
  int asked_ = 0;
  std::vector<std::function<void()>> held_;
};

class WatchdogTest : public ::testing::Test {
 protected:
  std::unique_ptr<Watchdog> Start() {
    return std::make_unique<Watchdog>(
        std::vector<Watchdog::Part>{
            {"one", [this](std::function<void()> done) { one_.Ask(std::move(done)); }},
            {"two", [this](std::function<void()> done) { two_.Ask(std::move(done)); }}},
        Watchdog::Options{kPeriod,
                          [this](const std::string& state) {
                            std::lock_guard lock(mutex_);
                            told_.push_back(state);
                            changed_.notify_all();
                          },
                          [] { return "well"; }});
  }

  // Waits until something that begins so is told, after what was told before.
  std::string Await(const std::string& begin) {
    std::unique_lock lock(mutex_);
    for (;;) {
      for (; seen_ < told_.size(); ++seen_) {
        if (told_[seen_].starts_with(begin)) return told_[seen_++];
      }
      changed_.wait(lock);
    }
  }
  size_t Pings() {
    std::lock_guard lock(mutex_);
    return static_cast<size_t>(std::count(told_.begin(), told_.end(), kPing));
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> told_;
  size_t seen_ = 0;
  Part one_;
  Part two_;
};

TEST_F(WatchdogTest, PingsAgainAndAgainWhileEveryPartTurnsOver) {
  const auto watchdog = Start();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Await("WATCHDOG"), kPing);
  EXPECT_GE(one_.asked(), 3);
  EXPECT_GE(two_.asked(), 3);
}

TEST_F(WatchdogTest, PingsNoMoreWhileAPartStandsStillAndNamesIt) {
  two_.Stick();
  const auto watchdog = Start();
  const std::string status = Await("STATUS=Stuck for ");
  EXPECT_TRUE(status.ends_with(": two")) << status;
  Await("STATUS=Stuck for ");
  Await("STATUS=Stuck for ");
  EXPECT_EQ(Pings(), 0u);
}

TEST_F(WatchdogTest, NamesEveryPartThatStandsStill) {
  one_.Stick();
  two_.Stick();
  const auto watchdog = Start();
  EXPECT_TRUE(Await("STATUS=Stuck for ").ends_with(": one, two"));
}

TEST_F(WatchdogTest, APartThatStandsStillIsNotAskedAgain) {
  two_.Stick();
  const auto watchdog = Start();
  for (int i = 0; i < 4; ++i) Await("STATUS=Stuck for ");
  EXPECT_EQ(two_.asked(), 1);
  EXPECT_GE(one_.asked(), 4);
}

TEST_F(WatchdogTest, PingsGoOnWhenThePartTurnsOverAgain) {
  const auto watchdog = Start();
  Await("WATCHDOG");
  one_.Stick();
  Await("STATUS=Stuck for ");
  one_.LetGo();
  EXPECT_EQ(Await("WATCHDOG"), kPing);
}

TEST_F(WatchdogTest, AnAnswerThatComesAfterTheEndIsHeardByNobody) {
  one_.Stick();
  auto watchdog = Start();
  Await("STATUS=Stuck for ");
  watchdog.reset();
  one_.LetGo();
  EXPECT_EQ(Pings(), 0u);
}

TEST_F(WatchdogTest, TheEndDoesNotWaitForThePeriod) {
  const absl::Time before = absl::Now();
  Watchdog(std::vector<Watchdog::Part>{},
           Watchdog::Options{absl::Hours(1), [](const std::string&) {}, [] { return ""; }});
  EXPECT_LT(absl::Now() - before, absl::Minutes(1));
}

TEST(WatchdogPeriod, IsAQuarterOfWhatSystemdWaitsAndZeroIfItDoesNot) {
  unsetenv("WATCHDOG_PID");
  unsetenv("WATCHDOG_USEC");
  EXPECT_EQ(Watchdog::PeriodAskedFor(), absl::ZeroDuration());
  setenv("WATCHDOG_USEC", "60000000", 1);
  EXPECT_EQ(Watchdog::PeriodAskedFor(), absl::Seconds(15));
  setenv("WATCHDOG_PID", "1", 1);  // another process's
  EXPECT_EQ(Watchdog::PeriodAskedFor(), absl::ZeroDuration());
  unsetenv("WATCHDOG_PID");
  unsetenv("WATCHDOG_USEC");
}

}  // namespace
}  // namespace twinroot
