// The bytes behind host frames, where the engine itself works on guest memory: it walks the tables
// of a guest on shadow tables and makes by hand what no leaf may let through. Declared by the
// engine, implemented by the daemon. Only backends whose processors are software have it.
#ifndef TWINROOT_MMU_VM_HOST_MEMORY_H_
#define TWINROOT_MMU_VM_HOST_MEMORY_H_

#include <cstddef>

#include "mmu/types/address.h"

namespace twinroot::mmu {

class HostMemory {
 public:
  virtual ~HostMemory() = default;
  // The `size` bytes at `hpa`, inside one page; null: nothing is there. Thread-safe. Valid as long
  // as the memslot whose backing it is; asked and used within one Turn.
  virtual std::byte* At(Hpa hpa, size_t size) = 0;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_HOST_MEMORY_H_
