// The page-modification log of one vCPU (SDM vol. 3C, "Page-Modification Logging"): 512 guest-
// physical addresses, filled from entry 511 down. Not thread-safe; the vCPU that owns it stops
// first.
#ifndef TWINROOT_MMU_VMX_PML_H_
#define TWINROOT_MMU_VMX_PML_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "mmu/types/address.h"

namespace twinroot::mmu::vmx {

class PageModificationLog {
 public:
  static constexpr uint16_t kEntries = 512;

  // "If the PML index is not in the range 0-511, there is a page-modification log-full event."
  // After entry 0 the index wraps to FFFFH.
  bool full() const { return index_ >= kEntries; }
  uint16_t index() const { return index_; }

  // Not full. "Bits 11:0 of the value written are always 0."
  void Write(Gpa gpa);
  // What was logged, oldest first; the index is 511 again.
  std::vector<Gpa> Take();

 private:
  std::array<uint64_t, kEntries> page_;
  uint16_t index_ = kEntries - 1;
};

}  // namespace twinroot::mmu::vmx

#endif  // TWINROOT_MMU_VMX_PML_H_
