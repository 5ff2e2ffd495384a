#include "tests/load/idle_watches.h"

#include <chrono>

#include "grpcpp/client_context.h"
#include "grpcpp/support/client_callback.h"

namespace twinroot::load {
namespace {

constexpr int kOnOneConnection = 100;
constexpr auto kPatience = std::chrono::seconds(60);

}  // namespace

class IdleWatches::Watch final : public grpc::ClientReadReactor<v1::WatchEventsResponse> {
 public:
  Watch(IdleWatches* all, Client* client) : all_(all) {
    // Nobody's events, but the bookmark of a state in which there is nothing, at once.
    request_.mutable_filter()->set_vm("nobody");
    request_.set_initial_state(v1::WatchEventsRequest::INITIAL_STATE_SEND);
    client->events().async()->WatchEvents(&context_, &request_, this);
    StartRead(&message_);
    StartCall();
  }

  void Cancel() { context_.TryCancel(); }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (!opened_) {
      opened_ = true;
      all_->Opened();
    }
    StartRead(&message_);
  }
  void OnDone(const grpc::Status& status) override {
    Must(opened_ && status.error_code() == grpc::StatusCode::CANCELLED,
         "an idle watch has ended: " + status.error_message());
    all_->Ended();
  }

  IdleWatches* const all_;
  grpc::ClientContext context_;
  v1::WatchEventsRequest request_;
  v1::WatchEventsResponse message_;
  bool opened_ = false;
};

IdleWatches::IdleWatches(const std::string& endpoint, int count) {
  for (int i = 0; i < count; ++i) {
    if (i % kOnOneConnection == 0) clients_.push_back(std::make_unique<Client>(endpoint));
    watches_.push_back(std::make_unique<Watch>(this, clients_.back().get()));
  }
  std::unique_lock lock(mutex_);
  Must(changed_.wait_for(lock, kPatience, [&] { return opened_ == watches_.size(); }),
       "the idle watches are not served");
}

IdleWatches::~IdleWatches() {
  for (const auto& watch : watches_) watch->Cancel();
  std::unique_lock lock(mutex_);
  Must(changed_.wait_for(lock, kPatience, [&] { return ended_ == watches_.size(); }),
       "cancelled watches do not end");
}

// Notified under the lock: with the last one, this object goes.
void IdleWatches::Opened() {
  std::lock_guard lock(mutex_);
  ++opened_;
  changed_.notify_all();
}

void IdleWatches::Ended() {
  std::lock_guard lock(mutex_);
  ++ended_;
  changed_.notify_all();
}

}  // namespace twinroot::load
