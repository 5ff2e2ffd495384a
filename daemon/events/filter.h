// Which events somebody wants to hear of. Immutable; thread-safe.
#ifndef TWINROOT_DAEMON_EVENTS_FILTER_H_
#define TWINROOT_DAEMON_EVENTS_FILTER_H_

#include <cstdint>
#include <set>
#include <string>

#include "twinroot/v1/event.pb.h"

namespace twinroot::events {

class Filter {
 public:
  // Everything.
  Filter() = default;
  // The names and kinds are valid.
  explicit Filter(const v1::EventFilter& filter);

  // `vm`: empty for an event of the daemon.
  bool WantsVm(const std::string& vm) const { return vms_.empty() || vms_.contains(vm); }
  bool Wants(const std::string& vm, v1::Event::KindCase kind) const {
    return (kinds_ == 0 || (kinds_ >> kind & 1) != 0) && WantsVm(vm);
  }

 private:
  std::set<std::string> vms_;
  uint64_t kinds_ = 0;  // bit n: kind n; none: all
};

}  // namespace twinroot::events

#endif  // TWINROOT_DAEMON_EVENTS_FILTER_H_
