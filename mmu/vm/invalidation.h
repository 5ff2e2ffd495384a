// The frame of every change of mappings (behaviour D4): holds off faults on ranges, takes their
// mappings away, and lets go when the change is committed.
//
// Used by the thread whose turn it is. Between Zap and Commit pages may be copied and discarded,
// while faults in the ranges retry and faults elsewhere go on.
#ifndef TWINROOT_MMU_VM_INVALIDATION_H_
#define TWINROOT_MMU_VM_INVALIDATION_H_

#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "mmu/vm/address_space_state.h"

namespace twinroot::mmu {

class Invalidation {
 public:
  // Begins. The ranges are ordered, disjoint and not empty.
  Invalidation(const Turn& turn, AddressSpaceState& vm, std::vector<GfnRange> ranges);
  // Ends, if Commit did not.
  ~Invalidation();
  Invalidation(const Invalidation&) = delete;
  Invalidation& operator=(const Invalidation&) = delete;

  // Removes every mapping of the ranges in every alias of these kinds (A4, A5): one flush for each
  // alias, however many ranges. An error: an external table kept something; the VM is bugged.
  absl::Status Zap(absl::Span<const MemoryKind> kinds);

  // Makes the change visible and ends, in one step for every fault.
  void Commit(const std::function<void()>& change);

 private:
  const Turn& turn_;
  AddressSpaceState& vm_;
  const std::vector<GfnRange> ranges_;
  bool ended_ = false;
};

// Nothing in the whole VM is in the middle of a fault while it lives: faults retry.
class Quiet {
 public:
  Quiet(const Turn& turn, AddressSpaceState& vm);

 private:
  Invalidation everything_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_INVALIDATION_H_
