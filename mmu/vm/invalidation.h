// The frame of every change of mappings (behaviour D4): holds off faults on ranges, takes their
// mappings away, and lets go when the change is committed.
//
// Used by the thread whose turn it is. Between Zap and Commit no lock is held: pages may be copied
// and discarded, while faults in the ranges retry and faults elsewhere go on.
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
  // Begins. The ranges are not empty; they are visited in their order.
  Invalidation(AddressSpaceState& vm, std::vector<GfnRange> ranges);
  // Ends, if Commit did not.
  ~Invalidation();
  Invalidation(const Invalidation&) = delete;
  Invalidation& operator=(const Invalidation&) = delete;

  // Removes every mapping of the ranges from the roots of these kinds: one flush for each root,
  // however many ranges. An error: an external table kept something; the VM is bugged.
  absl::Status Zap(absl::Span<const MemoryKind> kinds);

  // Makes the change visible and ends, in one step.
  void Commit(const std::function<void(const MmuLock::Exclusive&)>& change);

 private:
  void ZapRoot(const Root& root, FlushBatch& batch);

  AddressSpaceState& vm_;
  const std::vector<GfnRange> ranges_;
  bool ended_ = false;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_INVALIDATION_H_
