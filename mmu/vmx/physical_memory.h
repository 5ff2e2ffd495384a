// What the processor's physical address bus reaches. Declared by the processor, implemented by
// whoever has the memory.
#ifndef TWINROOT_MMU_VMX_PHYSICAL_MEMORY_H_
#define TWINROOT_MMU_VMX_PHYSICAL_MEMORY_H_

#include <cstddef>

#include "mmu/types/address.h"

namespace twinroot::mmu::vmx {

// Thread-safe. Processors keep what At has returned with the translation that led there: it stays
// valid until they have flushed that translation.
class PhysicalMemory {
 public:
  virtual ~PhysicalMemory() = default;

  // The `size` bytes at `hpa`, as aligned as `hpa` is; null: nothing is there.
  virtual std::byte* At(Hpa hpa, size_t size) = 0;
};

}  // namespace twinroot::mmu::vmx

#endif  // TWINROOT_MMU_VMX_PHYSICAL_MEMORY_H_
