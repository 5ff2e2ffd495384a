// One ordered list of what the fakes were asked, so that a test can state an order across them.
// Thread-safe.
#ifndef TWINROOT_TESTS_FAKES_CALL_LOG_H_
#define TWINROOT_TESTS_FAKES_CALL_LOG_H_

#include <atomic>
#include <cstdio>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "mmu/types/memory_kind.h"

namespace twinroot::mmu {

class CallLog {
 public:
  // For runs that nobody asks what was called.
  void Mute() { muted_ = true; }
  bool muted() const { return muted_; }

  void Add(std::string call) {
    if (muted_) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    calls_.push_back(std::move(call));
  }
  // Everything since the last Take.
  std::vector<std::string> Take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(calls_, {});
  }

 private:
  std::atomic<bool> muted_{false};
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

// The call is put into words only if somebody wants to know.
inline void LogCall(CallLog& log, const char* verb, MemoryKind kind, uint64_t first,
                    uint64_t count) {
  if (!log.muted()) log.Add(CallText(verb, kind, first, count));
}

}  // namespace twinroot::mmu

#endif  // TWINROOT_TESTS_FAKES_CALL_LOG_H_
