#include "daemon/events/tail.h"

#include <algorithm>
#include <utility>

namespace twinroot::events {

bool Tail::Append(SharedEvent event) {
  const bool room = waiting_ < max_waiting_;
  if (!room && !entries_.empty() && entries_.back().what == Entry::What::kLost &&
      entries_.back().position >= taken_) {
    ++entries_.back().count;
  } else {
    Entry entry;
    entry.what = room ? Entry::What::kEvent : Entry::What::kLost;
    entry.position = next_;
    if (room) entry.event = std::move(event);
    entries_.push_back(std::move(entry));
    ++waiting_;
  }
  ++next_;
  return room;
}

std::vector<Entry> Tail::Take(size_t max) {
  const auto begin = entries_.end() - static_cast<std::ptrdiff_t>(waiting_);
  const auto end = begin + static_cast<std::ptrdiff_t>(std::min(max, waiting_));
  std::vector<Entry> taken(begin, end);
  if (!taken.empty()) taken_ = std::max(taken_, taken.back().end());
  return taken;
}

std::vector<Entry> Tail::Commit(uint64_t end) {
  while (waiting_ > 0 && entries_[entries_.size() - waiting_].end() <= end) --waiting_;
  committed_ = end;
  std::vector<Entry> dropped;
  while (entries_.size() - waiting_ > keep_) {
    dropped.push_back(std::move(entries_.front()));
    entries_.pop_front();
  }
  return dropped;
}

std::vector<Entry> Tail::Read(uint64_t position, uint64_t end, size_t max) const {
  end = std::min(end, committed_);
  auto at = std::partition_point(entries_.begin(), entries_.end(),
                                 [&](const Entry& entry) { return entry.end() <= position; });
  std::vector<Entry> read;
  for (; at != entries_.end() && at->position < end && read.size() < max; ++at) {
    read.push_back(*at);
  }
  return read;
}

}  // namespace twinroot::events
