#include "daemon/watchdog.h"

#include <pthread.h>
#include <systemd/sd-daemon.h>

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "spdlog/spdlog.h"

namespace twinroot {

struct Watchdog::Asked {
  std::mutex mutex;
  std::condition_variable changed;
  // Below: `mutex`. When each part was asked; none: it has answered.
  std::vector<absl::Time> since;
  bool stopping = false;

  static constexpr absl::Time kAnswered = absl::InfiniteFuture();
  bool AllAnswered() const {
    return std::all_of(since.begin(), since.end(), [](absl::Time at) { return at == kAnswered; });
  }
};

absl::Duration Watchdog::PeriodAskedFor() {
  uint64_t microseconds = 0;
  if (sd_watchdog_enabled(/*unset_environment=*/0, &microseconds) <= 0) return absl::ZeroDuration();
  return absl::Microseconds(static_cast<int64_t>(microseconds)) / 4;
}

Watchdog::Watchdog(std::vector<Part> parts, Options options)
    : parts_(std::move(parts)),
      options_(std::move(options)),
      asked_(std::make_shared<Asked>()),
      thread_() {
  asked_->since.assign(parts_.size(), Asked::kAnswered);
  thread_ = std::thread([this] { Run(); });
}

Watchdog::~Watchdog() {
  {
    std::lock_guard lock(asked_->mutex);
    asked_->stopping = true;
  }
  asked_->changed.notify_all();
  thread_.join();
}

void Watchdog::Run() {
  pthread_setname_np(pthread_self(), "hvd-watchdog");
  for (;;) {
    const auto next = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(options_.period);
    AskAll();
    std::unique_lock lock(asked_->mutex);
    const bool well = asked_->changed.wait_until(
        lock, next, [this] { return asked_->stopping || asked_->AllAnswered(); });
    if (asked_->stopping) return;
    lock.unlock();
    well ? TellWell() : TellStuck();
    lock.lock();
    if (asked_->changed.wait_until(lock, next, [this] { return asked_->stopping; })) return;
  }
}

void Watchdog::AskAll() {
  for (size_t i = 0; i < parts_.size(); ++i) {
    {
      std::lock_guard lock(asked_->mutex);
      if (asked_->since[i] != Asked::kAnswered) continue;
      asked_->since[i] = absl::Now();
    }
    parts_[i].ask([asked = asked_, i] {
      {
        std::lock_guard lock(asked->mutex);
        asked->since[i] = Asked::kAnswered;
      }
      asked->changed.notify_all();
    });
  }
}

void Watchdog::TellWell() {
  if (!stuck_.empty()) spdlog::warn("{}: turns over again", std::exchange(stuck_, ""));
  options_.notify(absl::StrCat("WATCHDOG=1\nSTATUS=", options_.status()));
}

void Watchdog::TellStuck() {
  std::string stuck;
  absl::Duration longest;
  {
    std::lock_guard lock(asked_->mutex);
    for (size_t i = 0; i < parts_.size(); ++i) {
      if (asked_->since[i] == Asked::kAnswered) continue;
      absl::StrAppend(&stuck, stuck.empty() ? "" : ", ", parts_[i].name);
      longest = std::max(longest, absl::Now() - asked_->since[i]);
    }
  }
  if (stuck.empty()) return;  // answered just now: pinged in the next period
  const std::string how_long = absl::FormatDuration(absl::Floor(longest, absl::Milliseconds(1)));
  if (stuck != stuck_) {
    spdlog::error("{}: has not turned over for {}; the supervisor gets no pings", stuck, how_long);
  }
  stuck_ = stuck;
  options_.notify(absl::StrCat("STATUS=Stuck for ", how_long, ": ", stuck));
}

}  // namespace twinroot
