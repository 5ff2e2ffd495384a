#include "daemon/memory/mapping.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace twinroot::memory {
namespace {

constexpr uint64_t kHugePage = uint64_t{2} << 20;

absl::Status MapError(int error, uint64_t size) {
  return absl::ResourceExhaustedError(
      absl::StrCat("cannot map ", size, " bytes of guest memory: ", std::strerror(error),
                   error == ENOMEM ? "; vm.max_map_count or RLIMIT_AS may be too small" : ""));
}

// Guest memory goes into no core dump and to no child process.
void Confine(std::byte* data, uint64_t size) {
  madvise(data, size, MADV_DONTDUMP);
  madvise(data, size, MADV_DONTFORK);
}

}  // namespace

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

Mapping::~Mapping() {
  if (data_ != nullptr) munmap(data_, size_);
}

absl::StatusOr<Mapping> Mapping::Anonymous(uint64_t size) {
  void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) return MapError(errno, size);
  Confine(static_cast<std::byte*>(data), size);
  return Mapping(static_cast<std::byte*>(data), size);
}

absl::StatusOr<Mapping> Mapping::Shared(int fd, uint64_t size) {
  // Reserve one huge page too much, keep the aligned part.
  const uint64_t reserved = size + kHugePage;
  void* hole =
      mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (hole == MAP_FAILED) return MapError(errno, size);
  auto* const begin = static_cast<std::byte*>(hole);
  const uint64_t skip = (kHugePage - reinterpret_cast<uintptr_t>(begin) % kHugePage) % kHugePage;
  std::byte* const data = begin + skip;
  void* mapped =
      mmap(data, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, 0);
  if (mapped == MAP_FAILED) {
    const int error = errno;
    munmap(hole, reserved);
    return MapError(error, size);
  }
  if (skip != 0) munmap(begin, skip);
  if (skip != kHugePage) munmap(data + size, kHugePage - skip);
  Confine(data, size);
  return Mapping(data, size);
}

absl::Status Mapping::Renew(int fd, int protection) {
  if (mmap(data_, size_, protection, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, 0) == MAP_FAILED) {
    return MapError(errno, size_);
  }
  Confine(data_, size_);
  return absl::OkStatus();
}

}  // namespace twinroot::memory
