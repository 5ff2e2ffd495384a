// Memory types as paging structures and the EPTP encode them (SDM vol. 3A, "Memory Cache Control").
#ifndef TWINROOT_MMU_HW_MEM_TYPE_H_
#define TWINROOT_MMU_HW_MEM_TYPE_H_

#include <cstdint>

namespace twinroot::mmu {

enum class MemType : uint8_t {
  kUncacheable = 0,
  kWriteCombining = 1,
  kWriteThrough = 4,
  kWriteProtected = 5,
  kWriteBack = 6,
};

// 2, 3 and 7 are reserved: in a leaf they are an EPT misconfiguration.
constexpr bool IsMemType(uint64_t encoding) {
  return encoding <= 6 && encoding != 2 && encoding != 3;
}

static_assert(IsMemType(0) && IsMemType(1) && IsMemType(4) && IsMemType(5) && IsMemType(6));
static_assert(!IsMemType(2) && !IsMemType(3) && !IsMemType(7));

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_HW_MEM_TYPE_H_
