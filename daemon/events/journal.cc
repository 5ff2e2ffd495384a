#include "daemon/events/journal.h"

#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "daemon/callbacks.h"
#include "daemon/reasons.h"
#include "daemon/status_reason.h"

namespace twinroot::events {
namespace {

constexpr size_t kEpochDigits = 16;
// Events looked at under one hold of the lock: a filter that matches little must not keep Append
// waiting.
constexpr size_t kScan = 1024;

std::string NewEpoch() {
  std::random_device random;
  const uint64_t epoch = (uint64_t{random()} << 32) | random();
  return absl::StrFormat("%016x", epoch);
}

bool LooksLikeEpoch(const std::string& text) {
  if (text.size() != kEpochDigits) return false;
  for (const char c : text) {
    if (!absl::ascii_isxdigit(c) || absl::ascii_isupper(c)) return false;
  }
  return true;
}

// Digits only: SimpleAtoi would take "+1" and " 1", and a cursor has one spelling.
bool ParseSequence(const std::string& text, uint64_t* sequence) {
  if (text.empty() || (text.size() > 1 && text[0] == '0')) return false;
  for (const char c : text) {
    if (!absl::ascii_isdigit(c)) return false;
  }
  return absl::SimpleAtoi(text, sequence);
}

}  // namespace

// Position p is the place before event number p (from 0); cursor p names the same place.
struct Journal::State {
  const size_t capacity;
  const std::string epoch = NewEpoch();

  mutable std::mutex mutex;
  // Events are shared with readers, who copy them without the lock. All below: `mutex`.
  std::deque<std::shared_ptr<const v1::Event>> events;
  uint64_t first = 0;  // position before events.front()
  std::map<std::string, uint64_t> vm_sequences;
  std::function<void(const v1::Event&)> observer;

  Callbacks<> watchers;

  explicit State(size_t capacity) : capacity(capacity) {}

  uint64_t next() const { return first + events.size(); }
  std::string CursorAt(uint64_t position) const { return absl::StrCat(epoch, "-", position); }
};

class Journal::Subscription {
 public:
  explicit Subscription(std::unique_ptr<CallbackHandle> handle) : handle_(std::move(handle)) {}

 private:
  std::unique_ptr<CallbackHandle> handle_;
};

Journal::Journal(size_t capacity)
    : state_(std::make_shared<State>(std::max<size_t>(capacity, 1))) {}

Journal::~Journal() = default;

void Journal::SetObserver(std::function<void(const v1::Event&)> observer) {
  std::lock_guard lock(state_->mutex);
  state_->observer = std::move(observer);
}

void Journal::Append(v1::Event event) {
  auto kept = std::make_shared<v1::Event>(std::move(event));
  std::shared_ptr<const v1::Event> dropped;  // freed without the lock
  {
    std::lock_guard lock(state_->mutex);
    *kept->mutable_time() =
        google::protobuf::util::TimeUtil::NanosecondsToTimestamp(absl::GetCurrentTimeNanos());
    kept->set_cursor(state_->CursorAt(state_->next() + 1));
    kept->set_vm_sequence(kept->vm().empty() ? 0 : ++state_->vm_sequences[kept->vm()]);
    if (state_->observer) state_->observer(*kept);
    state_->events.push_back(std::move(kept));
    if (state_->events.size() > state_->capacity) {
      dropped = std::move(state_->events.front());
      state_->events.pop_front();
      ++state_->first;
    }
  }
  state_->watchers.Call();
}

std::string Journal::Cursor() const {
  std::lock_guard lock(state_->mutex);
  return state_->CursorAt(state_->next());
}

std::string Journal::OldestCursor() const {
  std::lock_guard lock(state_->mutex);
  return state_->CursorAt(state_->first);
}

std::string Journal::CursorAt(uint64_t position) const { return state_->CursorAt(position); }

size_t Journal::size() const {
  std::lock_guard lock(state_->mutex);
  return state_->events.size();
}

absl::StatusOr<uint64_t> Journal::PositionOf(const std::string& cursor, IfEmpty if_empty,
                                             IfTooOld if_too_old) const {
  std::lock_guard lock(state_->mutex);
  if (cursor.empty()) return if_empty == IfEmpty::kBeginning ? 0 : state_->next();

  uint64_t position = 0;
  const size_t dash = cursor.find('-');
  if (dash == std::string::npos || !LooksLikeEpoch(cursor.substr(0, dash)) ||
      !ParseSequence(cursor.substr(dash + 1), &position)) {
    return WithReason(absl::InvalidArgumentError(
                          "the cursor is malformed: give one back exactly as an event, a list or a "
                          "bookmark carried it"),
                      reason::kCursorMalformed);
  }
  const std::string oldest = state_->CursorAt(state_->first);
  const auto out_of_range = [&](const char* what, const char* reason) {
    return WithReason(
        absl::OutOfRangeError(absl::StrCat(what, "; the oldest cursor is ", oldest,
                                           ": list the VMs again and watch from there")),
        reason, {{"oldest_cursor", oldest}});
  };
  if (cursor.substr(0, dash) != state_->epoch) {
    return out_of_range("the cursor belongs to another journal (the daemon was restarted)",
                        reason::kCursorOtherEpoch);
  }
  if (position < state_->first && if_too_old == IfTooOld::kRefuse) {
    return out_of_range("the events after this cursor are no longer kept", reason::kCursorExpired);
  }
  if (position > state_->next()) {
    return out_of_range("no event has this cursor yet", reason::kCursorInFuture);
  }
  return position;
}

Journal::Page Journal::Read(uint64_t position, size_t max, const std::string& vm_filter,
                            uint64_t end_position) const {
  Page page;
  page.next = position;
  std::vector<std::shared_ptr<const v1::Event>> scanned;
  while (page.events.size() < max) {
    scanned.clear();
    {
      std::lock_guard lock(state_->mutex);
      if (page.next < state_->first) {
        // A hole in the middle of a page is told by the next Read, in its place.
        if (page.next != position) break;
        page.missed_from = page.next;
        page.missed = state_->first - page.next;
        page.next = state_->first;
        position = page.next;
      }
      const uint64_t end = std::min(end_position, state_->next());
      for (uint64_t at = page.next; at < end && scanned.size() < kScan; ++at) {
        scanned.push_back(state_->events[at - state_->first]);
      }
    }
    if (scanned.empty()) break;
    for (const auto& event : scanned) {
      if (page.events.size() == max) break;
      if (vm_filter.empty() || event->vm() == vm_filter) page.events.push_back(*event);
      ++page.next;
    }
  }
  return page;
}

std::shared_ptr<Journal::Subscription> Journal::Subscribe(std::function<void()> wake) {
  return std::make_shared<Subscription>(state_->watchers.Add(std::move(wake)));
}

void Journal::ForgetVm(const std::string& vm) {
  std::lock_guard lock(state_->mutex);
  state_->vm_sequences.erase(vm);
}

}  // namespace twinroot::events
