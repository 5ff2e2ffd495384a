// What the processor's EPT can do, and how IA32_VMX_EPT_VPID_CAP says it (SDM vol. 3D, "VPID and
// EPT Capabilities"). Mode-based execute control is a VM-execution control: it is not in that MSR.
// Plain values; the defaults describe a current server processor.
#ifndef TWINROOT_MMU_HW_EPT_CAPABILITIES_H_
#define TWINROOT_MMU_HW_EPT_CAPABILITIES_H_

#include <cstdint>

#include "mmu/types/level.h"

namespace twinroot::mmu {

struct EptCapabilities {
  bool execute_only = true;
  bool walk_length_4 = true;
  bool walk_length_5 = true;
  bool page_2m = true;
  bool page_1g = true;
  bool accessed_dirty = true;
  bool mode_based_execute = false;

  static constexpr uint64_t kMsrExecuteOnly = uint64_t{1} << 0;
  static constexpr uint64_t kMsrWalkLength4 = uint64_t{1} << 6;
  static constexpr uint64_t kMsrWalkLength5 = uint64_t{1} << 7;
  static constexpr uint64_t kMsrPage2M = uint64_t{1} << 16;
  static constexpr uint64_t kMsrPage1G = uint64_t{1} << 17;
  static constexpr uint64_t kMsrAccessedDirty = uint64_t{1} << 21;

  static constexpr EptCapabilities FromMsr(uint64_t msr, bool mode_based_execute) {
    EptCapabilities c;
    c.execute_only = msr & kMsrExecuteOnly;
    c.walk_length_4 = msr & kMsrWalkLength4;
    c.walk_length_5 = msr & kMsrWalkLength5;
    c.page_2m = msr & kMsrPage2M;
    c.page_1g = msr & kMsrPage1G;
    c.accessed_dirty = msr & kMsrAccessedDirty;
    c.mode_based_execute = mode_based_execute;
    return c;
  }

  // A leaf may stand at this level.
  constexpr bool MapsAt(Level level) const {
    return level == Level::k4K || (level == Level::k2M && page_2m) ||
           (level == Level::k1G && page_1g);
  }
  constexpr bool Walks(int levels) const {
    return (levels == 4 && walk_length_4) || (levels == 5 && walk_length_5);
  }

  friend constexpr bool operator==(const EptCapabilities&, const EptCapabilities&) = default;
};

static_assert(EptCapabilities::FromMsr(0x2300C1, false) == EptCapabilities{});
static_assert(!EptCapabilities::FromMsr(0, false).Walks(4));
static_assert(EptCapabilities{}.MapsAt(Level::k1G) && !EptCapabilities{}.MapsAt(Level::k512G));

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_HW_EPT_CAPABILITIES_H_
