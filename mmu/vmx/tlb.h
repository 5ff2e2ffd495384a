// What a processor remembers of walks: guest-physical mappings, tagged by the root they came from
// (SDM vol. 3C, "Caching Translation Information").
//
// Not thread-safe; the vCPU that owns it stops first. It keeps an entry until that entry is flushed
// or another takes its place, however wrong the tables have made it since: a flush that somebody
// forgot shows. Bounded: direct-mapped, one array for each page size.
#ifndef TWINROOT_MMU_VMX_TLB_H_
#define TWINROOT_MMU_VMX_TLB_H_

#include <array>
#include <cstdint>
#include <limits>
#include <vector>

#include "mmu/types/address.h"
#include "mmu/vmx/ept_walker.h"

namespace twinroot::mmu::vmx {

class Tlb {
 public:
  static constexpr uint64_t kEntries4K = 1024;
  static constexpr uint64_t kEntries2M = 128;
  static constexpr uint64_t kEntries1G = 16;

  Tlb();

  // `root`: the EPTP's table, as a tag. Null: not remembered. Valid until the next other call.
  const EptTranslation* Lookup(Hpa root, HwGfn frame) const;
  void Insert(Hpa root, HwGfn frame, const EptTranslation& translation);

  // Forgets every page of `root` that has a frame in [first, first + count).
  void FlushRange(Hpa root, HwGfn first, uint64_t count);
  void FlushAll();

 private:
  // No page has this number.
  static constexpr uint64_t kNone = std::numeric_limits<uint64_t>::max();
  struct Entry {
    uint64_t page = kNone;  // frame number in pages of this array's size
    Hpa root;
    EptTranslation translation;
  };
  struct PageSizeArray {
    Level level;
    uint64_t entries;        // a power of two
    uint64_t first;          // in entries_
    bool ever_used = false;  // since the last FlushAll

    uint64_t PageOf(HwGfn frame) const { return frame.value / FramesPerEntry(level); }
    uint64_t IndexOf(uint64_t page) const { return first + (page & (entries - 1)); }
  };

  std::array<PageSizeArray, 3> arrays_;
  std::vector<Entry> entries_;
};

}  // namespace twinroot::mmu::vmx

#endif  // TWINROOT_MMU_VMX_TLB_H_
