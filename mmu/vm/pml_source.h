// The vCPUs' page-modification logs (SDM vol. 3C, "Page-Modification Logging"). Declared by the
// engine, implemented by whoever runs the vCPUs.
#ifndef TWINROOT_MMU_VM_PML_SOURCE_H_
#define TWINROOT_MMU_VM_PML_SOURCE_H_

#include "absl/functional/function_ref.h"
#include "mmu/types/address.h"

namespace twinroot::mmu {

// Thread-safe. Called under the Turn: must not wait for a vCPU that waits for the engine.
class PmlSource {
 public:
  virtual ~PmlSource() = default;
  // When it returns, every vCPU logs the pages whose D flag it sets, or none does.
  virtual void SetEnabled(bool enabled) = 0;
  // Takes what all vCPUs have logged so far: raw addresses, page-aligned.
  virtual void Drain(absl::FunctionRef<void(Gpa)> page) = 0;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_PML_SOURCE_H_
