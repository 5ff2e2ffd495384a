// One readable line for each event: time, vm, what, where, how long.
//   14:03:07.123 demo  vcpu0 TO_SHARED  0x200000 +4KiB IMPLICIT APPLIED 63us
// Not thread-safe: the column of VM names grows with the longest name seen.
#ifndef TWINROOT_CLI_RENDER_EVENT_LINE_H_
#define TWINROOT_CLI_RENDER_EVENT_LINE_H_

#include <string>

#include "twinroot/v1/event.pb.h"

namespace twinroot::cli {

enum class Colors { kOff, kOn };

class EventLines {
 public:
  explicit EventLines(Colors colors) : colors_(colors) {}

  // With its newline. Empty for a bookmark: nothing happened.
  std::string Render(const v1::Event& event);

 private:
  const Colors colors_;
  size_t vm_width_ = 5;
};

// Local time of day, to the millisecond: "14:03:07.123".
std::string FormatClock(const google::protobuf::Timestamp& time);

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_RENDER_EVENT_LINE_H_
