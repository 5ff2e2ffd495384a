// What the processor's EPT can do, and how IA32_VMX_EPT_VPID_CAP says it (SDM vol. 3D, "VPID and
// EPT Capabilities"). Mode-based execute control is a VM-execution control: it is not in that MSR.
// Plain values; the defaults describe a current server processor.
#ifndef TWINROOT_MMU_HW_EPT_CAPABILITIES_H_
#define TWINROOT_MMU_HW_EPT_CAPABILITIES_H_

#include <cstdint>

#include "mmu/hw/mem_type.h"
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
  // Memory types that an EPTP may give to the tables.
  bool uncacheable_tables = true;
  bool write_back_tables = true;
  bool invept_single_context = true;
  bool invept_all_contexts = true;
  // Exit qualification bits 11:9 are defined. Off by default: nothing here reads them.
  bool advanced_exit_information = false;
  bool supervisor_shadow_stack = false;

  static constexpr uint64_t kMsrExecuteOnly = uint64_t{1} << 0;
  static constexpr uint64_t kMsrWalkLength4 = uint64_t{1} << 6;
  static constexpr uint64_t kMsrWalkLength5 = uint64_t{1} << 7;
  static constexpr uint64_t kMsrUncacheable = uint64_t{1} << 8;
  static constexpr uint64_t kMsrWriteBack = uint64_t{1} << 14;
  static constexpr uint64_t kMsrPage2M = uint64_t{1} << 16;
  static constexpr uint64_t kMsrPage1G = uint64_t{1} << 17;
  static constexpr uint64_t kMsrInvept = uint64_t{1} << 20;
  static constexpr uint64_t kMsrAccessedDirty = uint64_t{1} << 21;
  static constexpr uint64_t kMsrAdvancedExitInformation = uint64_t{1} << 22;
  static constexpr uint64_t kMsrSupervisorShadowStack = uint64_t{1} << 23;
  static constexpr uint64_t kMsrInveptSingleContext = uint64_t{1} << 25;
  static constexpr uint64_t kMsrInveptAllContexts = uint64_t{1} << 26;

  static constexpr EptCapabilities FromMsr(uint64_t msr, bool mode_based_execute) {
    EptCapabilities c;
    c.execute_only = msr & kMsrExecuteOnly;
    c.walk_length_4 = msr & kMsrWalkLength4;
    c.walk_length_5 = msr & kMsrWalkLength5;
    c.page_2m = msr & kMsrPage2M;
    c.page_1g = msr & kMsrPage1G;
    c.accessed_dirty = msr & kMsrAccessedDirty;
    c.mode_based_execute = mode_based_execute;
    c.uncacheable_tables = msr & kMsrUncacheable;
    c.write_back_tables = msr & kMsrWriteBack;
    // The types of INVEPT mean something only where the instruction exists.
    c.invept_single_context = (msr & kMsrInvept) && (msr & kMsrInveptSingleContext);
    c.invept_all_contexts = (msr & kMsrInvept) && (msr & kMsrInveptAllContexts);
    c.advanced_exit_information = msr & kMsrAdvancedExitInformation;
    c.supervisor_shadow_stack = msr & kMsrSupervisorShadowStack;
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

  // `mem_type` as an EPTP encodes it.
  constexpr bool ReadsTablesAs(uint64_t mem_type) const {
    return (mem_type == static_cast<uint64_t>(MemType::kUncacheable) && uncacheable_tables) ||
           (mem_type == static_cast<uint64_t>(MemType::kWriteBack) && write_back_tables);
  }

  friend constexpr bool operator==(const EptCapabilities&, const EptCapabilities&) = default;
};

static_assert(EptCapabilities::FromMsr(0x633'41C1, false) == EptCapabilities{});
static_assert(EptCapabilities::FromMsr(0xC0'0000, false).advanced_exit_information &&
              EptCapabilities::FromMsr(0xC0'0000, false).supervisor_shadow_stack);
static_assert(!EptCapabilities::FromMsr(0x600'0000, false).invept_all_contexts);
static_assert(!EptCapabilities::FromMsr(0, false).Walks(4));
static_assert(EptCapabilities{}.MapsAt(Level::k1G) && !EptCapabilities{}.MapsAt(Level::k512G));

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_HW_EPT_CAPABILITIES_H_
