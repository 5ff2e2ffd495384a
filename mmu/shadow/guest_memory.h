// The guest's memory as whoever reads its tables needs it: aligned words. Declared by the walker,
// implemented by mmu/vm over memslots (and by tests).
//
// Thread-safe. A word never straddles a page. Guest tables may lie in shared memory, or in private
// memory where the processor itself reads them (`sim`); their bytes never leave the walk.
#ifndef TWINROOT_MMU_SHADOW_GUEST_MEMORY_H_
#define TWINROOT_MMU_SHADOW_GUEST_MEMORY_H_

#include <cstdint>
#include <optional>

#include "mmu/types/address.h"

namespace twinroot::mmu {

class GuestMemory {
 public:
  enum class Exchange : uint8_t {
    kDone,     // also where writes are dropped, as a ROM drops them
    kChanged,  // another word stands there
    kNothing,  // no memory there
  };

  virtual ~GuestMemory() = default;
  // `bytes` is 4 or 8, the address a multiple of it. Nullopt: no memory there.
  virtual std::optional<uint64_t> Read(Gpa word, int bytes) = 0;
  virtual Exchange CompareExchange(Gpa word, int bytes, uint64_t expected, uint64_t desired) = 0;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_SHADOW_GUEST_MEMORY_H_
