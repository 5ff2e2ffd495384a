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
#include "daemon/rpc/told_events.h"
#include "twinroot/v1/event.pb.h"

namespace twinroot::rpc {

// Reads up to `max` events, and tells a gap before them if some were missed. May read the disk.
events::Journal::Page ReadPage(const Context& context, uint64_t position, size_t max,
                               const events::Filter& filter, const TellEvent& tell,
                               uint64_t end = std::numeric_limits<uint64_t>::max());

class EventStream final : public Pump<v1::WatchEventsResponse> {
 public:
  // With `lossless`, which stands at `position`, it misses nothing; null: an ordinary watch.
  EventStream(Context* context, uint64_t position, events::Filter filter,
              events::LosslessWatches::Handle lossless);
  // What every VM is now, then a bookmark, come first; then what was committed since. Before Begin.
  void BeginWithState();
  // Once, before the reactor is given to gRPC.
  void Begin();

 private:
  Next Produce(v1::WatchEventsResponse* message, absl::Status* end) override;
  bool Blocks() const override;
  // Whatever is before position_ was sent, or is left out by the filter.
  void TellReached();
  std::string Bookmark();
  absl::Status TooSlow() const;

  Context* const context_;
  const events::Filter filter_;
  // Produce's own.
  uint64_t position_;
  uint64_t told_;                    // of the last cursor that was sent, or that the caller had
  std::deque<std::string> initial_;  // as TellEvent takes them
  bool farewell_ = false;            // the last bookmark was sent

  const events::LosslessWatches::Handle lossless_;

  std::atomic<bool> tick_{false};  // a bookmark is due if there is nothing else to send

  std::shared_ptr<events::Journal::Subscription> appended_;
  std::unique_ptr<CallbackHandle> lossless_changed_;
  std::unique_ptr<CallbackHandle> drain_;
  std::unique_ptr<CallbackHandle> ticker_;
};

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_EVENT_STREAM_H_
