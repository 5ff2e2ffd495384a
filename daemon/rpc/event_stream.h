// One WatchEvents call: reads the journal by position, so a slow or dead caller costs nothing to
// others; when the journal has overtaken it, it says so in its stream.
// Thread-safe as Pump is.
#ifndef TWINROOT_DAEMON_RPC_EVENT_STREAM_H_
#define TWINROOT_DAEMON_RPC_EVENT_STREAM_H_

#include <atomic>
#include <deque>
#include <limits>
#include <memory>
#include <string>

#include "daemon/events/filter.h"
#include "daemon/events/journal.h"
#include "daemon/rpc/context.h"
#include "daemon/rpc/pump.h"
#include "twinroot/v1/event.pb.h"

namespace twinroot::rpc {

// Reads up to `max` events into `out`, after a gap event if some were missed before them. May read
// the disk.
events::Journal::Page AppendPage(const events::Journal& journal, uint64_t position, size_t max,
                                 const events::Filter& filter,
                                 google::protobuf::RepeatedPtrField<v1::Event>* out,
                                 uint64_t end = std::numeric_limits<uint64_t>::max());

class EventStream final : public Pump<v1::WatchEventsResponse> {
 public:
  EventStream(Context* context, uint64_t position, events::Filter filter);
  ~EventStream() override;
  // What every VM is now, then a bookmark, come first; then what was committed since. Before Begin.
  void BeginWithState();
  // Misses nothing; who makes events for it waits for it at most so long. Before BeginWithState.
  void Hold(absl::Duration hold);
  // Once, before the reactor is given to gRPC.
  void Begin();

 private:
  Next Produce(v1::WatchEventsResponse* message, absl::Status* end) override;
  bool Blocks() const override;
  v1::Event Bookmark();
  absl::Status TooSlow() const;

  Context* const context_;
  const events::Filter filter_;
  // Produce's own.
  uint64_t position_;
  uint64_t told_;  // of the last cursor that was sent, or that the caller had
  std::deque<v1::Event> initial_;
  bool farewell_ = false;  // the last bookmark was sent

  std::shared_ptr<events::LosslessWatches::Watch> lossless_;  // null: an ordinary watch

  std::atomic<bool> tick_{false};  // a bookmark is due if there is nothing else to send

  std::shared_ptr<events::Journal::Subscription> appended_;
  std::unique_ptr<CallbackHandle> lossless_changed_;
  std::unique_ptr<CallbackHandle> drain_;
  std::unique_ptr<CallbackHandle> ticker_;
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_EVENT_STREAM_H_
