// The journal's writer.
#include <algorithm>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "daemon/events/journal_state.h"
#include "spdlog/spdlog.h"

namespace twinroot::events {
namespace {

constexpr size_t kBatch = 4096;
constexpr absl::Duration kFirstBackOff = absl::Milliseconds(20);
constexpr absl::Duration kLongestBackOff = absl::Seconds(1);
constexpr uint32_t kDoublings = 6;
// The log tells of losses at most so often: a flood is one.
constexpr absl::Duration kLossInterval = absl::Seconds(1);

}  // namespace

Journal::Writer::Writer(State* state, const JournalOptions& options)
    : state_(*state), compaction_(options.limits, options.notice, state->store.get()) {
  thread_ = std::thread([this] { Run(); });
}

Journal::Writer::~Writer() {
  {
    std::lock_guard lock(state_.mutex);
    state_.stopping = true;
  }
  state_.work.notify_one();
  thread_.join();
}

void Journal::Writer::Run() {
  for (;;) {
    const std::vector<Entry> batch = Next();
    if (!batch.empty() && !Commit(batch)) {
      {
        std::lock_guard lock(state_.mutex);
        if (state_.stopping) break;
      }
      BackOff();
      continue;
    }
    {
      std::lock_guard lock(state_.mutex);
      if (state_.stopping && state_.tail.waiting() == 0) break;
      if (state_.stopping) continue;
    }
    CompactOnce();
  }
  Finish();
}

std::vector<Entry> Journal::Writer::Next() {
  std::unique_lock lock(state_.mutex);
  const absl::Time until = compaction_.Next(state_.first, state_.tail.committed());
  state_.writer_sleeps = true;
  state_.work.wait_until(lock, absl::ToChronoTime(until),
                         [this] { return state_.stopping || state_.tail.waiting() > 0; });
  state_.writer_sleeps = false;
  return state_.tail.Take(kBatch);
}

bool Journal::Writer::Commit(const std::vector<Entry>& batch) {
  const absl::Status status = state_.store->Commit(batch);
  std::vector<Entry> dropped;  // freed without the lock
  uint64_t lost = 0;
  {
    std::lock_guard lock(state_.mutex);
    lost = state_.lost;
    state_.refused = !status.ok();
    if (status.ok()) {
      dropped = state_.tail.Commit(batch.back().end());
    } else {
      ++state_.failed_commits;
    }
  }
  state_.committed.notify_all();
  if (!status.ok()) {
    if (failures_++ == 0) {
      lost_before_ = lost;
      spdlog::error(
          "the event journal cannot be written: {}; events wait in memory and nobody sees them "
          "until the disk takes them",
          std::string(status.message()));
    }
    return false;
  }
  if (failures_ > 0) {
    spdlog::warn("the event journal is written again; {} events were lost meanwhile",
                 lost - lost_before_);
    failures_ = 0;
  }
  TellLost(batch);
  state_.watchers.Call();
  return true;
}

void Journal::Writer::TellLost(const std::vector<Entry>& batch) {
  for (const Entry& entry : batch) {
    if (entry.what == Entry::What::kLost) lost_untold_ += entry.count;
  }
  const absl::Time now = absl::Now();
  if (lost_untold_ == 0 || now < next_loss_) return;
  spdlog::error("{} events became a gap: the journal's disk was too slow, or refused them",
                lost_untold_);
  lost_untold_ = 0;
  next_loss_ = now + kLossInterval;
}

void Journal::Writer::CompactOnce() {
  uint64_t first = 0;
  uint64_t next = 0;
  {
    std::lock_guard lock(state_.mutex);
    first = state_.first;
    next = state_.tail.committed();
  }
  const uint64_t keep_from = state_.lossless.oldest();
  const absl::Time now = absl::Now();
  absl::Status status;
  if (compaction_.Due(first, keep_from, now)) {
    const absl::StatusOr<uint64_t> left = compaction_.Step(first, keep_from);
    status = left.status();
    if (left.ok()) {
      std::lock_guard lock(state_.mutex);
      state_.first = *left;
    }
  } else {
    const absl::StatusOr<bool> moved = compaction_.Look(first, next, keep_from, now);
    status = moved.status();
    {
      std::lock_guard lock(state_.mutex);
      state_.bytes = compaction_.bytes();
      state_.horizon = compaction_.horizon();
    }
    if (moved.ok() && *moved) state_.watchers.Call();
  }
  if (!status.ok()) {
    spdlog::error("old events cannot be removed from the journal: {}",
                  std::string(status.message()));
    compaction_.Postpone(now);
  }
}

void Journal::Writer::BackOff() {
  const absl::Duration pause =
      std::min(kFirstBackOff * (1 << std::min(failures_, kDoublings)), kLongestBackOff);
  std::unique_lock lock(state_.mutex);
  state_.work.wait_until(lock, absl::ToChronoTime(absl::Now() + pause),
                         [this] { return state_.stopping; });
}

void Journal::Writer::Finish() {
  size_t left = 0;
  {
    std::lock_guard lock(state_.mutex);
    left = state_.tail.waiting();
  }
  if (left > 0) {
    spdlog::error("{} events could not be written and are lost", left);
    return;
  }
  if (const absl::Status status = state_.store->Close(); !status.ok()) {
    spdlog::error("the event journal cannot be closed: {}", std::string(status.message()));
  }
}

}  // namespace twinroot::events
