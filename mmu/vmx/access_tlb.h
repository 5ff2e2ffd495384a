// What an access asks first: 4K pieces of what the Tlb holds or held, with the bytes they lead to
// and the kinds of access that need no further look. One tag for each kind, so that a hit is one
// compare; its low bits are a generation, so that clearing is one addition.
//
// Not thread-safe; the vCPU that owns it stops first. It knows neither roots nor page sizes: the
// bit that selects the root is part of the address, and every flush clears all of it.
#ifndef TWINROOT_MMU_VMX_ACCESS_TLB_H_
#define TWINROOT_MMU_VMX_ACCESS_TLB_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "mmu/types/address.h"

namespace twinroot::mmu::vmx {

enum class AccessKind : uint8_t { kRead = 0, kWrite = 1, kFetch = 2 };

class AccessTlb {
 public:
  static constexpr uint64_t kEntries = 1024;

  // The kinds of access that a page serves as it is cached.
  struct Serves {
    bool read, write, fetch;
  };

  // A page that serves this kind is here; HostOf says where it lies.
  bool Hits(AccessKind kind, Gpa gpa) const {
    return entries_[IndexOf(gpa)].tags[static_cast<size_t>(kind)] == TagOf(gpa);
  }
  // Of an address that hits.
  std::byte* HostOf(Gpa gpa) const {
    return reinterpret_cast<std::byte*>(entries_[IndexOf(gpa)].distance + gpa.value);
  }
  // `page`: where the 4K page of `gpa` begins.
  void Insert(Gpa gpa, std::byte* page, Serves serves) {
    const uint64_t tag = TagOf(gpa);
    entries_[IndexOf(gpa)] = {
        {serves.read ? tag : kNone, serves.write ? tag : kNone, serves.fetch ? tag : kNone},
        reinterpret_cast<uintptr_t>(page) - (gpa.value & ~kPageOffsetMask)};
  }
  void Forget(Gpa gpa) { entries_[IndexOf(gpa)] = Entry{}; }
  void Clear() {
    if (++generation_ <= kLastGeneration) return;
    generation_ = 0;
    entries_.fill(Entry{});
  }

 private:
  // In the offset's place; all ones is kept for kNone.
  static constexpr uint64_t kLastGeneration = kPageOffsetMask - 1;
  // Of no generation: nothing has this tag.
  static constexpr uint64_t kNone = ~uint64_t{0};
  struct Entry {
    std::array<uint64_t, 3> tags = {kNone, kNone, kNone};
    uintptr_t distance = 0;  // from a GPA to the host's address, modulo 2^64
  };

  uint64_t TagOf(Gpa gpa) const { return (gpa.value & ~kPageOffsetMask) | generation_; }
  static uint64_t IndexOf(Gpa gpa) { return gpa.value / kPageSize % kEntries; }

  uint64_t generation_ = 0;
  std::array<Entry, kEntries> entries_;
};

}  // namespace twinroot::mmu::vmx

#endif  // TWINROOT_MMU_VMX_ACCESS_TLB_H_
