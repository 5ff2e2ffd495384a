// One ordered list of what the fakes were asked, so that a test can state an order across them.
// Thread-safe.
#ifndef TWINROOT_TESTS_FAKES_CALL_LOG_H_
#define TWINROOT_TESTS_FAKES_CALL_LOG_H_

#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "mmu/types/memory_kind.h"

namespace twinroot::mmu {

class CallLog {
 public:
  void Add(std::string call) {
    const std::lock_guard<std::mutex> lock(mutex_);
    calls_.push_back(std::move(call));
  }
  // Everything since the last Take.
  std::vector<std::string> Take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(calls_, {});
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> calls_;
};

inline std::string NameOf(MemoryKind kind) {
  return kind == MemoryKind::kPrivate ? "private" : "shared";
}
// "flush private 0x200+512"
inline std::string CallText(const std::string& verb, MemoryKind kind, uint64_t first,
                            uint64_t count) {
  char text[64];
  std::snprintf(text, sizeof(text), " 0x%llx+%llu", static_cast<unsigned long long>(first),
                static_cast<unsigned long long>(count));
  return verb + " " + NameOf(kind) + text;
}

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_FAKES_CALL_LOG_H_
