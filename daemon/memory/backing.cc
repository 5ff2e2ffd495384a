#include "daemon/memory/backing.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace twinroot::memory {

absl::StatusOr<Backing> Backing::Create(const char* name, uint64_t size, HpaSpace* space) {
  const int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("memfd_create: ", std::strerror(errno), "; raise LimitNOFILE or delete VMs"));
  }
  if (ftruncate(fd, static_cast<off_t>(size)) != 0 ||
      fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    const int error = errno;
    close(fd);
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot size a memfd to ", size, " bytes: ", std::strerror(error)));
  }
  absl::StatusOr<Mapping> mapping = Mapping::Shared(fd, size);
  absl::StatusOr<HpaRange> hpas = space->Allocate(size);
  if (!mapping.ok() || !hpas.ok()) {
    close(fd);
    return mapping.ok() ? hpas.status() : mapping.status();
  }
  return Backing(fd, *std::move(mapping), *std::move(hpas));
}

Backing::Backing(int fd, Mapping mapping, HpaRange hpas)
    : fd_(fd),
      mapping_(std::move(mapping)),
      hpas_(std::move(hpas)),
      allocated_(std::make_unique<AllocatedPages>(mapping_.size() / mmu::kPageSize)) {}

Backing::Backing(Backing&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      mapping_(std::move(other.mapping_)),
      hpas_(std::move(other.hpas_)),
      allocated_(std::move(other.allocated_)) {}

Backing::~Backing() {
  if (fd_ >= 0) close(fd_);
}

absl::Status Backing::Allocate(uint64_t offset, uint64_t length) {
  const AllocatedPages::Ticket ticket = allocated_->Begin();
  int result;
  do {
    result = fallocate(fd_, 0, static_cast<off_t>(offset), static_cast<off_t>(length));
  } while (result != 0 && errno == EINTR);
  if (result == 0) {
    allocated_->Remember(ticket, offset / mmu::kPageSize, length / mmu::kPageSize);
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("the host has no memory for a guest page: ", std::strerror(errno)));
}

void Backing::Discard(uint64_t offset, uint64_t length) {
  int result;
  do {
    result = fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                       static_cast<off_t>(length));
  } while (result != 0 && errno == EINTR);
  if (result != 0) std::memset(data() + offset, 0, length);
  allocated_->Forget(offset / mmu::kPageSize, length / mmu::kPageSize);
}

void Backing::CopyFrom(const Backing& source, uint64_t offset, uint64_t length) {
  const uint64_t end = offset + length;
  for (uint64_t at = offset; at < end;) {
    const off_t first = lseek(source.fd_, static_cast<off_t>(at), SEEK_DATA);
    if (first < 0 && errno == ENXIO) return;  // nothing allocated from here on
    const uint64_t data_begin = first < 0 ? at : static_cast<uint64_t>(first);
    if (data_begin >= end) return;
    const off_t hole = lseek(source.fd_, static_cast<off_t>(data_begin), SEEK_HOLE);
    const uint64_t data_end = hole < 0 ? end : std::min<uint64_t>(end, static_cast<uint64_t>(hole));
    std::memcpy(data() + data_begin, source.data() + data_begin, data_end - data_begin);
    at = data_end;
  }
}

uint64_t Backing::allocated_bytes() const {
  struct stat info;
  return fstat(fd_, &info) == 0 ? static_cast<uint64_t>(info.st_blocks) * 512 : 0;
}

}  // namespace twinroot::memory
