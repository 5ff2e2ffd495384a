#include "daemon/events/wake_list.h"

#include <utility>

namespace twinroot::events {

struct WakeList::Entry {
  std::mutex mutex;
  std::function<void()> wake;  // empty: its handle is gone
};

// The entries are replaced, never changed: who wakes them takes one reference and no copy.
struct WakeList::State {
  std::mutex mutex;
  std::shared_ptr<const Entries> entries = std::make_shared<const Entries>();
};

WakeList::Handle::Handle(std::shared_ptr<State> state, std::shared_ptr<Entry> entry)
    : state_(std::move(state)), entry_(std::move(entry)) {}

WakeList::Handle::~Handle() {
  {
    std::lock_guard lock(state_->mutex);
    auto rest = std::make_shared<Entries>(*state_->entries);
    std::erase(*rest, entry_);
    state_->entries = std::move(rest);
  }
  // Somebody may have taken the old entries: they find this one empty.
  std::lock_guard lock(entry_->mutex);
  entry_->wake = nullptr;
}

WakeList::WakeList() : state_(std::make_shared<State>()) {}

std::unique_ptr<WakeList::Handle> WakeList::Add(std::function<void()> wake) {
  auto entry = std::make_shared<Entry>();
  entry->wake = std::move(wake);
  {
    std::lock_guard lock(state_->mutex);
    auto more = std::make_shared<Entries>(*state_->entries);
    more->push_back(entry);
    state_->entries = std::move(more);
  }
  return std::make_unique<Handle>(state_, std::move(entry));
}

void WakeList::WakeAll() const {
  std::shared_ptr<const Entries> entries;
  {
    std::lock_guard lock(state_->mutex);
    entries = state_->entries;
  }
  for (const auto& entry : *entries) {
    std::lock_guard lock(entry->mutex);
    if (entry->wake) entry->wake();
  }
}

}  // namespace twinroot::events
