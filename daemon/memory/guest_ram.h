// The memory of one VM: one or two memslots that it was made with (RAM below 3 GiB, the rest from
// 4 GiB on) and those that were added since, each with a private and a shared backing. The engine's
// PageSource. Thread-safe; an added slot goes only when the engine uses it no more.
#ifndef TWINROOT_DAEMON_MEMORY_GUEST_RAM_H_
#define TWINROOT_DAEMON_MEMORY_GUEST_RAM_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/memory/backing.h"
#include "daemon/memory/hpa_space.h"
#include "mmu/types/gfn_range.h"
#include "mmu/types/memory_kind.h"
#include "mmu/vm/guest_address_space.h"
#include "mmu/vm/page_source.h"

namespace twinroot::memory {

inline constexpr uint64_t kLowRamLimit = uint64_t{3} << 30;
inline constexpr uint64_t kHighRamBase = uint64_t{4} << 30;

// One memslot with its two backings.
struct RamSlot {
  mmu::GfnRange range;
  Backing private_pages;
  Backing shared_pages;

  Backing& pages(mmu::MemoryKind kind) {
    return kind == mmu::MemoryKind::kPrivate ? private_pages : shared_pages;
  }
  const Backing& pages(mmu::MemoryKind kind) const {
    return const_cast<RamSlot*>(this)->pages(kind);
  }
  mmu::Memslot memslot() const {
    return {range, mmu::PfnOf(private_pages.hpa()), mmu::PfnOf(shared_pages.hpa())};
  }
};

// What a large leaf takes when it is made.
enum class Commit : uint8_t {
  kTouchedPages,  // the page that is touched; the others when they are
  kWholeLeaves,   // all of its pages: who maps it may not come back for them
};

class GuestRam : public mmu::PageSource {
 public:
  // `bytes` is a multiple of 2 MiB.
  static absl::StatusOr<std::unique_ptr<GuestRam>> Create(uint64_t bytes, HpaSpace* space,
                                                          Commit commit = Commit::kTouchedPages);

  uint64_t bytes() const { return bytes_; }
  uint64_t low_bytes() const { return bytes_ < kLowRamLimit ? bytes_ : kLowRamLimit; }
  // Those that it was made with.
  std::vector<RamSlot>& slots() { return slots_; }
  const std::vector<RamSlot>& slots() const { return slots_; }
  std::vector<mmu::Memslot> Memslots() const;

  // Bounds are multiples of 2 MiB. The result lives until Remove. kAlreadyExists: it overlaps
  // another slot.
  absl::Status CheckAdd(mmu::GfnRange range) const;
  absl::StatusOr<RamSlot*> Add(mmu::GfnRange range, HpaSpace* space);
  // The added slot that begins there, or null.
  RamSlot* Added(mmu::Gfn first);
  void Remove(mmu::Gfn first);
  size_t added_slots() const;
  uint64_t added_bytes() const;
  uint64_t allocated_bytes(mmu::MemoryKind kind) const;
  // Leaves that became small because the host had no memory for all of a large one.
  uint64_t leaves_without_memory() const { return leaves_without_memory_.load(); }

  // Calls `piece` for each part of [gpa, gpa + size) with the daemon's own view of its bytes.
  // False, and no call, if some byte lies outside memory.
  bool ForEachPiece(uint64_t gpa, uint64_t size, mmu::MemoryKind kind,
                    const std::function<void(std::byte* data, uint64_t size)>& piece);

  // Allocates what of the range is memory, slots that come and go notwithstanding.
  absl::Status Populate(mmu::GfnRange range, mmu::MemoryKind kind);

  // PageSource.
  std::optional<mmu::Level> Ready(mmu::Gfn gfn, mmu::MemoryKind kind) override;
  absl::StatusOr<Page> Resolve(mmu::Gfn gfn, mmu::MemoryKind kind, mmu::Level wanted) override;
  mmu::Level LargestLeaf(mmu::Gfn, mmu::MemoryKind) override { return mmu::Level::k2M; }
  absl::Status Reserve(mmu::GfnRange range, mmu::MemoryKind kind) override;
  void Copy(mmu::GfnRange range, mmu::MemoryKind from, mmu::MemoryKind to) override;
  void Discard(mmu::GfnRange range, mmu::MemoryKind kind) override;
  absl::Status Move(mmu::GfnRange from, mmu::Gfn to) override;

 private:
  GuestRam(uint64_t bytes, Commit commit) : bytes_(bytes), commit_(commit) {}

  struct Place {
    RamSlot* slot = nullptr;  // null: there is no memory
    uint64_t frame = 0;       // of the slot
  };
  Place Find(mmu::Gfn gfn);

  const uint64_t bytes_;
  const Commit commit_;
  std::atomic<uint64_t> leaves_without_memory_{0};
  std::vector<RamSlot> slots_;  // fixed after Create
  mutable std::shared_mutex added_mutex_;
  std::list<RamSlot> added_;  // the list and its ranges: guarded by added_mutex_
};

}  // namespace twinroot::memory

#endif  // TWINROOT_DAEMON_MEMORY_GUEST_RAM_H_
