// How the last requests that waited were decided, for whoever decides one again. Not thread-safe.
#ifndef TWINROOT_DAEMON_HOST_CONVERSION_HISTORY_H_
#define TWINROOT_DAEMON_HOST_CONVERSION_HISTORY_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "daemon/host/vm.h"

namespace twinroot::host {

class ConversionHistory {
 public:
  static constexpr size_t kKept = 512;

  void Add(uint64_t id, ResolveResult::Verdict verdict) {
    if (entries_.size() < kKept) {
      entries_.push_back({id, verdict});
    } else {
      entries_[next_++ % kKept] = {id, verdict};
    }
  }
  std::optional<ResolveResult::Verdict> Find(uint64_t id) const {
    for (const Entry& entry : entries_) {
      if (entry.id == id) return entry.verdict;
    }
    return std::nullopt;
  }

 private:
  struct Entry {
    uint64_t id;
    ResolveResult::Verdict verdict;
  };
  std::vector<Entry> entries_;  // empty in a VM where nothing ever waited
  uint64_t next_ = 0;           // the oldest, once it is full
};

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_CONVERSION_HISTORY_H_
