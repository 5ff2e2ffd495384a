// The EPT pointer (SDM vol. 3C, "Extended-Page-Table Pointer (EPTP)"): one word, no state.
#ifndef TWINROOT_MMU_HW_EPT_POINTER_H_
#define TWINROOT_MMU_HW_EPT_POINTER_H_

#include <cstdint>

#include "mmu/hw/ept_capabilities.h"
#include "mmu/hw/mem_type.h"
#include "mmu/types/address.h"
#include "mmu/types/level.h"

namespace twinroot::mmu {

class EptPointer {
 public:
  static constexpr uint64_t kMemTypeMask = 0x7;  // 2:0 type of table accesses
  static constexpr int kWalkLengthShift = 3;     // 5:3 levels - 1
  static constexpr uint64_t kWalkLengthMask = 0x7 << kWalkLengthShift;
  static constexpr uint64_t kAccessedDirty = uint64_t{1} << 6;  // 6 enable A and D bits
  // 7 enforce supervisor shadow-stack rights; never set here.
  static constexpr uint64_t kSupervisorShadowStack = uint64_t{1} << 7;
  static constexpr uint64_t kAddressMask = 0x000F'FFFF'FFFF'F000;

  constexpr EptPointer() = default;
  constexpr explicit EptPointer(uint64_t raw) : raw_(raw) {}

  // `root` is page-aligned; `levels` is 4 or 5.
  static constexpr EptPointer Make(Hpa root, int levels, bool accessed_dirty,
                                   MemType type = MemType::kWriteBack) {
    return EptPointer((root.value & kAddressMask) | static_cast<uint64_t>(type) |
                      (static_cast<uint64_t>(levels - 1) << kWalkLengthShift) |
                      (accessed_dirty ? kAccessedDirty : 0));
  }

  constexpr uint64_t raw() const { return raw_; }
  constexpr Hpa root() const { return Hpa(raw_ & kAddressMask); }
  constexpr int levels() const {
    return static_cast<int>((raw_ & kWalkLengthMask) >> kWalkLengthShift) + 1;
  }
  constexpr Level root_level() const { return static_cast<Level>(levels()); }
  constexpr bool accessed_dirty() const { return raw_ & kAccessedDirty; }
  constexpr bool supervisor_shadow_stack() const { return raw_ & kSupervisorShadowStack; }

  // What VM entry checks (SDM vol. 3C, "VM-Execution Control Fields"): a type and a walk
  // length that the capabilities report, A/D flags and shadow-stack control only where they exist,
  // bits 11:8 and 63:MAXPHYADDR zero.
  constexpr bool Valid(const EptCapabilities& capabilities, int maxphyaddr) const {
    const uint64_t defined = kMemTypeMask | kWalkLengthMask | kAccessedDirty |
                             kSupervisorShadowStack |
                             (kAddressMask & ((uint64_t{1} << maxphyaddr) - 1));
    return capabilities.ReadsTablesAs(raw_ & kMemTypeMask) && capabilities.Walks(levels()) &&
           (!accessed_dirty() || capabilities.accessed_dirty) &&
           (!supervisor_shadow_stack() || capabilities.supervisor_shadow_stack) &&
           (raw_ & ~defined) == 0;
  }

  friend constexpr bool operator==(EptPointer, EptPointer) = default;

 private:
  uint64_t raw_ = 0;
};

static_assert(EptPointer::Make(Hpa(0x1234'5000), 4, true).raw() == 0x1234'505E);
static_assert(EptPointer::Make(Hpa(0x1234'5000), 5, false).raw() == 0x1234'5026);
static_assert(EptPointer(0x1234'5026).root_level() == Level::k256T);
static_assert(EptPointer(0x505E).Valid({}, 39) && !EptPointer(0x50DE).Valid({}, 39));
static_assert(EptPointer(0x50DE).Valid({.supervisor_shadow_stack = true}, 39));
static_assert(!EptPointer(0x5058).Valid({.uncacheable_tables = false}, 39));
static_assert(!EptPointer((uint64_t{1} << 39) | 0x5E).Valid({}, 39));

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_HW_EPT_POINTER_H_
