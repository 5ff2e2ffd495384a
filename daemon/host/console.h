// What a guest said on its console: the last `capacity` bytes. Thread-safe.
#ifndef TWINROOT_DAEMON_HOST_CONSOLE_H_
#define TWINROOT_DAEMON_HOST_CONSOLE_H_

#include <algorithm>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>

#include "daemon/host/vm.h"

namespace twinroot::host {

class Console {
 public:
  explicit Console(size_t capacity = size_t{1} << 20) : capacity_(capacity) {}

  void Append(std::string_view bytes) {
    std::lock_guard lock(mutex_);
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    if (bytes_.size() > capacity_) {
      const size_t excess = bytes_.size() - capacity_;
      bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(excess));
      oldest_ += excess;
    }
  }

  Vm::ConsoleChunk Read(uint64_t offset, size_t max) const {
    std::lock_guard lock(mutex_);
    Vm::ConsoleChunk chunk;
    const uint64_t end = oldest_ + bytes_.size();
    chunk.offset = std::min(std::max(offset, oldest_), end);
    const auto begin = bytes_.begin() + static_cast<std::ptrdiff_t>(chunk.offset - oldest_);
    const uint64_t count = std::min<uint64_t>(max, end - chunk.offset);
    chunk.data.assign(begin, begin + static_cast<std::ptrdiff_t>(count));
    return chunk;
  }

 private:
  const size_t capacity_;
  mutable std::mutex mutex_;
  std::deque<char> bytes_;  // guarded by mutex_
  uint64_t oldest_ = 0;     // offset of bytes_[0]; guarded by mutex_
};

}  // namespace twinroot::host

#endif  // TWINROOT_DAEMON_HOST_CONSOLE_H_
