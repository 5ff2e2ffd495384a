#include "daemon/rpc/event_stream.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "daemon/host/event_words.h"
#include "daemon/reasons.h"
#include "daemon/status_reason.h"

namespace twinroot::rpc {
namespace {

constexpr int kMaxEvents = 256;
constexpr size_t kVmsAtOnce = 256;

}  // namespace

events::Journal::Page ReadPage(const Context& context, uint64_t position, size_t max,
                               const events::Filter& filter, const TellEvent& tell, uint64_t end) {
  const events::Journal& journal = *context.journal;
  events::Journal::Page page = journal.Read(position, max, filter, end);
  if (page.missed > 0) {
    v1::Event event;
    const std::string to = journal.CursorAt(page.missed_from + page.missed);
    event.set_cursor(to);
    host::SetTimestamp(absl::Now(), *event.mutable_time());
    event.mutable_gap()->set_from_cursor(journal.CursorAt(page.missed_from));
    event.mutable_gap()->set_to_cursor(to);
    event.mutable_gap()->set_count(page.missed);
    tell(event.SerializeAsString());
    context.on_gap(page.missed);
  }
  for (const events::SharedEvent& event : page.events) tell(event->bytes());
  return page;
}

EventStream::EventStream(Context* context, uint64_t position, events::Filter filter,
                         events::LosslessWatches::Handle lossless)
    : Pump(&context->streams),
      context_(context),
      filter_(std::move(filter)),
      position_(position),
      told_(position),
      lossless_(std::move(lossless)) {
  Open();
}

void EventStream::BeginWithState() {
  // A place that a cursor may name; what is on its way to the disk is told again.
  position_ = context_->journal->WaitCommitted(position_, absl::ZeroDuration());
  const std::string cursor = context_->journal->CursorAt(position_);
  std::string after;
  for (;;) {
    const auto vms = context_->registry->List(after, kVmsAtOnce);
    for (const auto& vm : vms) {
      after = vm->spec().name;
      if (!filter_.WantsVm(after)) continue;
      v1::Event event = host::StateEvent(after, vm->status());
      event.set_cursor(cursor);
      host::SetTimestamp(absl::Now(), *event.mutable_time());
      initial_.push_back(event.SerializeAsString());
    }
    if (vms.size() < kVmsAtOnce) break;
  }
  initial_.push_back(Bookmark());
}

void EventStream::Begin() {
  appended_ = context_->journal->Subscribe([this] { Wake(); });
  drain_ = context_->on_drain.Add([this] { Wake(); });
  if (lossless_ != nullptr) {
    lossless_changed_ = context_->journal->lossless().OnChange([this] { Wake(); });
  }
  ticker_ = context_->on_tick.Add([this] {
    // A caller that reads no more is found out even if nobody waits for it.
    if (lossless_ != nullptr) {
      context_->journal->lossless().Look(context_->journal->next(), absl::Now());
    }
    tick_ = true;
    Wake();
  });
  Wake();
}

bool EventStream::Blocks() const { return context_->journal->ReadsDisk(position_); }

std::string EventStream::Bookmark() {
  // A watch that began a moment ago may stand before events that no cursor may name yet.
  told_ = context_->journal->WaitCommitted(position_, absl::ZeroDuration());
  v1::Event event;
  event.set_cursor(context_->journal->CursorAt(told_));
  host::SetTimestamp(absl::Now(), *event.mutable_time());
  event.mutable_bookmark();
  return event.SerializeAsString();
}

void EventStream::TellReached() {
  if (lossless_ == nullptr) return;
  context_->journal->lossless().Reached(*lossless_, position_, context_->journal->next());
}

absl::Status EventStream::TooSlow() const {
  // One that may be named: a watch that was sent nothing may stand before what is committed.
  const std::string cursor =
      context_->journal->CursorAt(context_->journal->WaitCommitted(told_, absl::ZeroDuration()));
  return WithReason(
      absl::AbortedError(absl::StrCat(
          "this watch was more than ", events::LosslessWatches::kRoom, " events behind for ",
          absl::FormatDuration(lossless_->hold()),
          ", and guests wait for it no longer; its last cursor is ", cursor,
          ": begin again there, read faster and filter more; if you did, the journal's disk is too "
          "slow")),
      reason::kWatchTooSlow, {{"cursor", cursor}});
}

EventStream::Next EventStream::Produce(v1::WatchEventsResponse* message, absl::Status* end) {
  if (farewell_) return Next::kEnd;
  const TellEvent tell = TellIn(message);
  TellReached();  // what was read before was sent by now
  if (!initial_.empty()) {
    for (int i = 0; i < kMaxEvents && !initial_.empty(); ++i) {
      tell(initial_.front());
      initial_.pop_front();
    }
    return Next::kWrite;
  }
  if (lossless_ != nullptr && lossless_->expired()) {
    *end = TooSlow();
    return Next::kEnd;
  }
  // Asked before reading: what was committed before the drain is still sent.
  const bool draining = context_->draining;
  // One place is kept for a gap.
  const events::Journal::Page page = ReadPage(*context_, position_, kMaxEvents - 1, filter_, tell);
  position_ = page.next;
  if (page.told > 0) {
    told_ = page.told;
    return Next::kWrite;
  }
  TellReached();
  // Whoever has only old cursors, because the filter leaves much out, gets a good one in time.
  const bool expires = told_ < context_->journal->horizon() && told_ < position_;
  if (page.more && !expires) return Next::kAgain;
  if (draining) farewell_ = true;
  if (draining || expires || tick_.exchange(false)) {
    tell(Bookmark());
    return Next::kWrite;
  }
  return Next::kWait;
}

}  // namespace twinroot::rpc
