// A stretch of the journal: one event, or a hole where events are lost. Plain values.
#ifndef TWINROOT_DAEMON_EVENTS_ENTRY_H_
#define TWINROOT_DAEMON_EVENTS_ENTRY_H_

#include <cstdint>

#include "daemon/events/sealed_event.h"

namespace twinroot::events {

struct Entry {
  enum class What : uint8_t {
    kEvent,
    kLost,
    kLeftOut,  // a filter did not want it; nobody has read it
  };
  What what = What::kEvent;
  uint64_t position = 0;
  uint64_t count = 1;  // more than one: lost events in a row
  SharedEvent event;   // kEvent only

  uint64_t end() const { return position + count; }
};

}  // namespace twinroot::events

#endif  // TWINROOT_DAEMON_EVENTS_ENTRY_H_
