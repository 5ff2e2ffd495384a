// Which memory type each frame has, as the guest's MTRRs would say (F12): a default and some
// ranges.
//
// Readers never wait: a change swaps in a new list; the old one goes after an epoch. With no ranges
// a look-up is one load.
#ifndef TWINROOT_MMU_VM_MEM_TYPE_MAP_H_
#define TWINROOT_MMU_VM_MEM_TYPE_MAP_H_

#include <atomic>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "mmu/hw/mem_type.h"
#include "mmu/tables/epoch.h"
#include "mmu/tables/retire_list.h"
#include "mmu/types/gfn_range.h"

namespace twinroot::mmu {

struct MemTypeRange {
  GfnRange range;
  MemType type;
  friend bool operator==(const MemTypeRange&, const MemTypeRange&) = default;
};

struct MemTypes {
  MemType others = MemType::kWriteBack;  // of frames in no range
  std::vector<MemTypeRange> ranges;      // ordered, disjoint, not empty
  friend bool operator==(const MemTypes&, const MemTypes&) = default;
};

class MemTypeMap {
 public:
  MemTypeMap() : current_(new MemTypes) {}
  ~MemTypeMap() { delete current_.load(); }

  // kInvalidArgument: empty, unordered or overlapping ranges, or frames from `limit` on.
  static absl::Status Check(const MemTypes& types, Gfn limit);

  MemType Of(const MmuRead& read, Gfn gfn) const {
    const MemTypes& types = all(read);
    return types.ranges.empty() ? types.others : OfOneIn(types, gfn);
  }
  // Every frame of the range has the type of its first.
  bool Same(const MmuRead&, GfnRange range) const;
  const MemTypes& all(const MmuRead&) const { return *current_.load(std::memory_order_acquire); }

  // Cannot fail.
  void Swap(const Turn&, std::unique_ptr<const MemTypes> types) noexcept {
    retired_.Add(current_.exchange(types.release(), std::memory_order_acq_rel));
  }

 private:
  static MemType OfOneIn(const MemTypes& types, Gfn gfn);

  std::atomic<const MemTypes*> current_;
  RetireList retired_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_MEM_TYPE_MAP_H_
