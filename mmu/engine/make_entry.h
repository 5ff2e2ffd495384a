// Which word a leaf of a direct root is. Pure: the same request gives the same word.
#ifndef TWINROOT_MMU_ENGINE_MAKE_ENTRY_H_
#define TWINROOT_MMU_ENGINE_MAKE_ENTRY_H_

#include "mmu/hw/ept_entry.h"
#include "mmu/types/address.h"
#include "mmu/types/level.h"

namespace twinroot::mmu {

// Guest memory is write-back RAM, and the guest's PAT has its say. A and D start clear: the first
// access sets them.
constexpr EptEntry MakeLeaf(Pfn pfn, Level level, Access access) {
  return EptEntry::Leaf(HpaOf(pfn), level, access, MemType::kWriteBack);
}

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_ENGINE_MAKE_ENTRY_H_
