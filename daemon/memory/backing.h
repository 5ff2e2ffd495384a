// The pages of one kind (private or shared) of one memslot: a sparse, sealed memfd, the daemon's
// own mapping of it, and its place in the daemon's physical space. File offset = frame - first
// frame. Thread-safe; content is the business of the callers.
#ifndef TWINROOT_DAEMON_MEMORY_BACKING_H_
#define TWINROOT_DAEMON_MEMORY_BACKING_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/memory/allocated_pages.h"
#include "daemon/memory/hpa_space.h"
#include "daemon/memory/mapping.h"
#include "mmu/types/address.h"

namespace twinroot::memory {

class Backing {
 public:
  // `size` is a multiple of 2 MiB.
  static absl::StatusOr<Backing> Create(const char* name, uint64_t size, HpaSpace* space);

  Backing(Backing&& other) noexcept;
  Backing& operator=(Backing&&) = delete;
  ~Backing();

  int fd() const { return fd_; }
  uint64_t size() const { return mapping_.size(); }
  mmu::Hpa hpa() const { return hpas_.base(); }
  // The daemon's own view: touching it allocates and never blocks on a vCPU.
  std::byte* data() const { return mapping_.data(); }

  // Offsets and lengths below are multiples of 4096 and inside.
  absl::Status Allocate(uint64_t offset, uint64_t length);
  // Allocate has said so, and nothing was discarded there since: without a question to the kernel.
  // Means nothing while the page is being discarded.
  bool IsAllocated(uint64_t offset) const { return allocated_->Has(offset / mmu::kPageSize); }
  bool AreAllocated(uint64_t offset, uint64_t length) const {
    return allocated_->HasAll(offset / mmu::kPageSize, length / mmu::kPageSize);
  }
  // Frees the pages: they read zero when next used. Where the kernel cannot free, they are zeroed.
  void Discard(uint64_t offset, uint64_t length);
  // Copies what `source` has allocated in the range; the rest must read zero here already.
  void CopyFrom(const Backing& source, uint64_t offset, uint64_t length);

  uint64_t allocated_bytes() const;

 private:
  Backing(int fd, Mapping mapping, HpaRange hpas);

  int fd_ = -1;
  Mapping mapping_;
  HpaRange hpas_;
  std::unique_ptr<AllocatedPages> allocated_;
};

}  // namespace twinroot::memory

#endif  // TWINROOT_DAEMON_MEMORY_BACKING_H_
