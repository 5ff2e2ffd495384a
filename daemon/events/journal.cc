#include "daemon/events/journal.h"

#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "daemon/events/cursor.h"
#include "daemon/events/journal_state.h"
#include "daemon/reasons.h"
#include "daemon/status_reason.h"
#include "spdlog/spdlog.h"

namespace twinroot::events {
namespace {

// Entries looked at under one hold of a lock: a filter that matches little must not keep Append
// waiting.
constexpr size_t kChunk = 1024;
// Entries looked at for one page: a filter that matches little must not keep a thread.
constexpr size_t kMaxScan = 16384;

// Entries of [position, end); what they leave out of it is gone.
struct Chunk {
  std::vector<Entry> entries;
  uint64_t end = 0;
};

// Adds what is wanted to the page, which ends at `page.next`. False: the page is full, or a hole
// begins in its middle, which the next page tells in its place.
bool Absorb(const Chunk& chunk, const Filter& filter, size_t max, Journal::Page& page) {
  const auto miss = [&page](uint64_t until) {
    if (until <= page.next) return true;
    const bool first = page.missed == 0;
    if (!page.events.empty() || (!first && page.missed_from + page.missed != page.next)) {
      return false;
    }
    if (first) page.missed_from = page.next;
    page.missed += until - page.next;
    page.next = page.told = until;
    return true;
  };
  for (const Entry& entry : chunk.entries) {
    if (page.events.size() == max || !miss(std::min(entry.position, chunk.end))) return false;
    if (entry.what == Entry::What::kLost) {
      if (!miss(std::min(entry.end(), chunk.end))) return false;
      continue;
    }
    page.next = entry.end();
    if (entry.what == Entry::What::kEvent &&
        filter.Wants(entry.event->vm(), entry.event->kind_case())) {
      page.events.push_back(entry.event);
      page.told = page.next;
    }
  }
  return page.events.size() < max && miss(chunk.end);
}

std::string HostBootId() {
  std::string id;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), id);
  return id;
}

}  // namespace

class Journal::Subscription {
 public:
  explicit Subscription(std::unique_ptr<CallbackHandle> handle) : handle_(std::move(handle)) {}

 private:
  std::unique_ptr<CallbackHandle> handle_;
};

Journal::Journal(size_t capacity)
    : state_(std::make_unique<State>(NewEpoch(), Tail(0, std::max<size_t>(capacity, 1), 1),
                                     nullptr)) {}

Journal::Journal(std::unique_ptr<State> state) : state_(std::move(state)) {}

Journal::~Journal() = default;

absl::StatusOr<std::unique_ptr<Journal>> Journal::Open(JournalOptions options) {
  if (options.boot_id.empty()) options.boot_id = HostBootId();
  absl::StatusOr<std::unique_ptr<Store>> store = Store::Open(options.path, options.boot_id);
  if (!store.ok()) return store.status();
  const Store::Opening opening = (*store)->opening();
  auto state = std::make_unique<State>(
      opening.epoch, Tail(opening.next, options.in_memory, options.max_waiting), *std::move(store));
  state->first = opening.first;
  state->vm_sequences = opening.vm_sequences;
  state->opening.set_previous_end(opening.previous_end);
  state->opening.set_epoch_kept(opening.epoch_kept);
  std::unique_ptr<Journal> journal(new Journal(std::move(state)));
  journal->writer_ = std::make_unique<Writer>(journal->state_.get(), options);
  return journal;
}

void Journal::SetObserver(std::function<void(const v1::Event&)> observer) {
  std::lock_guard lock(state_->mutex);
  state_->observer = std::move(observer);
}

void Journal::Append(v1::Event event) {
  auto kept = std::make_shared<v1::Event>(std::move(event));
  std::vector<Entry> dropped;  // freed without the lock
  bool wake_writer = false;
  {
    std::lock_guard lock(state_->mutex);
    *kept->mutable_time() =
        google::protobuf::util::TimeUtil::NanosecondsToTimestamp(absl::GetCurrentTimeNanos());
    kept->set_cursor(CursorText(state_->epoch, state_->tail.next() + 1));
    kept->set_vm_sequence(kept->vm().empty() ? 0 : ++state_->vm_sequences[kept->vm()]);
    if (kept->has_vm_state() && kept->vm_state().deleted()) state_->vm_sequences.erase(kept->vm());
    if (state_->observer) state_->observer(*kept);
    if (!state_->tail.Append(std::move(kept))) ++state_->lost;
    if (state_->store == nullptr) {
      dropped = state_->tail.Commit(state_->tail.next());
      state_->first = state_->tail.first();
    } else {
      wake_writer = std::exchange(state_->writer_sleeps, false);
    }
  }
  if (state_->store == nullptr) {
    state_->watchers.Call();
  } else if (wake_writer) {
    state_->work.notify_one();
  }
}

uint64_t Journal::WaitCommitted(uint64_t position, absl::Duration timeout) const {
  const auto deadline = absl::ToChronoTime(absl::Now() + timeout);
  std::unique_lock lock(state_->mutex);
  state_->committed.wait_until(
      lock, deadline, [&] { return state_->refused || state_->tail.committed() >= position; });
  return std::min(position, state_->tail.committed());
}

uint64_t Journal::next() const {
  std::lock_guard lock(state_->mutex);
  return state_->tail.next();
}

LosslessWatches& Journal::lossless() const { return state_->lossless; }

std::optional<absl::Time> Journal::HeldUntil(const std::string& vm) const {
  if (!state_->lossless.any()) return std::nullopt;
  return state_->lossless.HeldUntil(vm, next(), absl::Now());
}

std::string Journal::Cursor() const {
  std::lock_guard lock(state_->mutex);
  return CursorText(state_->epoch, state_->tail.committed());
}

std::string Journal::OldestCursor() const {
  std::lock_guard lock(state_->mutex);
  return CursorText(state_->epoch, state_->first);
}

std::string Journal::CursorAt(uint64_t position) const {
  return CursorText(state_->epoch, position);
}

const v1::DaemonStarted& Journal::opening() const { return state_->opening; }

JournalStats Journal::stats() const {
  std::lock_guard lock(state_->mutex);
  return {state_->tail.committed() - state_->first, state_->bytes, state_->tail.waiting(),
          state_->lost, state_->failed_commits};
}

uint64_t Journal::horizon() const {
  std::lock_guard lock(state_->mutex);
  return state_->horizon;
}

absl::StatusOr<uint64_t> Journal::PositionOf(const std::string& cursor, IfEmpty if_empty,
                                             IfTooOld if_too_old) const {
  std::lock_guard lock(state_->mutex);
  if (cursor.empty()) return if_empty == IfEmpty::kBeginning ? 0 : state_->tail.next();

  const std::optional<ParsedCursor> parsed = ParseCursor(cursor);
  if (!parsed.has_value()) {
    return WithReason(absl::InvalidArgumentError(
                          "the cursor is malformed: give one back exactly as an event, a list or a "
                          "bookmark carried it"),
                      reason::kCursorMalformed);
  }
  const std::string oldest = CursorText(state_->epoch, state_->first);
  const auto out_of_range = [&](const char* what, const char* reason) {
    return WithReason(
        absl::OutOfRangeError(absl::StrCat(what, "; the oldest cursor is ", oldest,
                                           ": list the VMs again and watch from there")),
        reason, {{"oldest_cursor", oldest}});
  };
  if (parsed->epoch != state_->epoch) {
    return out_of_range("the cursor belongs to another journal (it was made anew, or lost its end)",
                        reason::kCursorOtherEpoch);
  }
  if (parsed->position < state_->first && if_too_old == IfTooOld::kRefuse) {
    return out_of_range("the events after this cursor are no longer kept", reason::kCursorExpired);
  }
  if (parsed->position > state_->tail.committed()) {
    return out_of_range("no event has this cursor yet", reason::kCursorInFuture);
  }
  return parsed->position;
}

Journal::Page Journal::Read(uint64_t position, size_t max, const Filter& filter,
                            uint64_t end) const {
  Page page;
  page.next = position;
  for (size_t scanned = 0; scanned < kMaxScan && page.events.size() < max;) {
    Chunk chunk;
    bool from_disk = false;
    {
      std::lock_guard lock(state_->mutex);
      const Tail& tail = state_->tail;
      end = std::min(end, tail.committed());
      if (page.next >= end) return page;
      chunk.end = end;
      if (page.next < state_->first) {
        chunk.end = std::min(end, state_->first);  // all of it is gone
      } else if (page.next < tail.first()) {
        chunk.end = std::min(end, tail.first());
        from_disk = true;
      } else {
        chunk.entries = tail.Read(page.next, end, kChunk);
      }
    }
    if (from_disk) {
      auto entries = state_->store->Read(page.next, chunk.end, kChunk, filter);
      if (entries.ok()) {
        chunk.entries = *std::move(entries);
      } else {
        // Whoever reads must get on: what cannot be read is gone.
        chunk.end = std::min<uint64_t>(chunk.end, page.next + kChunk);
        spdlog::error("events {} to {} of the journal cannot be read: {}", page.next, chunk.end,
                      std::string(entries.status().message()));
      }
    }
    if (chunk.entries.size() == kChunk) chunk.end = std::min(chunk.end, chunk.entries.back().end());
    scanned += std::max<size_t>(chunk.entries.size(), 1);
    if (!Absorb(chunk, filter, max, page)) break;
  }
  page.more = page.next < end;
  return page;
}

bool Journal::ReadsDisk(uint64_t position) const {
  std::lock_guard lock(state_->mutex);
  return position < state_->tail.first() && position >= state_->first;
}

std::shared_ptr<Journal::Subscription> Journal::Subscribe(std::function<void()> wake) {
  return std::make_shared<Subscription>(state_->watchers.Add(std::move(wake)));
}

}  // namespace twinroot::events
