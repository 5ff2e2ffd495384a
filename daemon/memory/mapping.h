// One mmap, unmapped when destroyed. Movable.
#ifndef TWINROOT_DAEMON_MEMORY_MAPPING_H_
#define TWINROOT_DAEMON_MEMORY_MAPPING_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace twinroot::memory {

class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept { *this = static_cast<Mapping&&>(other); }
  Mapping& operator=(Mapping&& other) noexcept;
  ~Mapping();

  // `size` bytes of anonymous zeroed memory, allocated on first touch.
  static absl::StatusOr<Mapping> Anonymous(uint64_t size);
  // All of `fd`'s first `size` bytes, shared, aligned to 2 MiB so that huge pages stay possible.
  static absl::StatusOr<Mapping> Shared(int fd, uint64_t size);

  // Begins a Shared one anew at the same place, in one step: nothing of it is mapped, no
  // userfaultfd watches it. After an error it is as it was.
  absl::Status Renew(int fd, int protection);

  std::byte* data() const { return data_; }
  uint64_t size() const { return size_; }

 private:
  Mapping(std::byte* data, uint64_t size) : data_(data), size_(size) {}

  std::byte* data_ = nullptr;
  uint64_t size_ = 0;
};

}  // namespace twinroot::memory

#endif  // TWINROOT_DAEMON_MEMORY_MAPPING_H_
