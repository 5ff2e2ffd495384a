// Watchers of a real server, and events for them.
#ifndef TWINROOT_TESTS_DAEMON_RPC_EVENT_FIXTURE_H_
#define TWINROOT_TESTS_DAEMON_RPC_EVENT_FIXTURE_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/daemon/rpc/rpc_fixture.h"

namespace twinroot::rpc {

inline v1::Event EventOf(const std::string& vm, uint64_t id) {
  v1::Event event;
  event.set_vm(vm);
  event.mutable_conversion()->set_id(id);
  return event;
}

class EventFixture : public RpcFixture {
 protected:
  // One watcher and what it has received.
  struct Watch {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::WatchEventsResponse>> reader;
    std::vector<v1::Event> events;

    // Reads until `count` events have come, or the stream's end.
    bool ReadUntil(size_t count) {
      v1::WatchEventsResponse response;
      while (events.size() < count && reader->Read(&response)) {
        EXPECT_GE(response.events_size(), 1);
        EXPECT_LE(response.events_size(), 256);
        for (v1::Event& event : *response.mutable_events()) events.push_back(std::move(event));
      }
      return events.size() >= count;
    }
    void ReadToEnd() { ReadUntil(SIZE_MAX); }
  };

  std::unique_ptr<Watch> Open(const v1::WatchEventsRequest& request = {}) {
    auto watch = std::make_unique<Watch>();
    watch->reader = events_->WatchEvents(&watch->context, request);
    // From here on the stream's place in the journal is settled.
    watch->reader->WaitForInitialMetadata();
    return watch;
  }

  void ExpectRefused(const v1::WatchEventsRequest& request, const std::string& reason,
                     const std::string& field) {
    ExpectBadField(Open(request)->reader->Finish(), reason, field);
  }

  // All pages of a list.
  std::vector<v1::Event> List(v1::ListEventsRequest request) {
    std::vector<v1::Event> events;
    for (;;) {
      grpc::ClientContext context;
      v1::ListEventsResponse response;
      const grpc::Status status = events_->ListEvents(&context, request, &response);
      EXPECT_TRUE(status.ok()) << status.error_message();
      events.insert(events.end(), response.events().begin(), response.events().end());
      if (!status.ok() || response.next_cursor() == response.end_cursor()) return events;
      request.set_start_cursor(response.next_cursor());
      request.set_end_cursor(response.end_cursor());
    }
  }

  void Append(const std::string& vm, uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) journal_->Append(EventOf(vm, ++last_id_));
  }

  uint64_t last_id_ = 0;
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_TESTS_DAEMON_RPC_EVENT_FIXTURE_H_
