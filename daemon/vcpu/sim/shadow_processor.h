// A processor without nested paging: CR3 names tables of host frames, which stand in for its
// guest's. Translations stay cached until they are flushed, however wrong they have become.
//
// Thread-safe as mmu::vmx::Vcpu: one owner makes accesses; any thread may flush, which waits for
// the access under way.
#ifndef TWINROOT_DAEMON_VCPU_SIM_SHADOW_PROCESSOR_H_
#define TWINROOT_DAEMON_VCPU_SIM_SHADOW_PROCESSOR_H_

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <variant>

#include "mmu/shadow/guest_memory.h"
#include "mmu/shadow/ia32_paging.h"
#include "mmu/vm/shadow_fault.h"
#include "mmu/vmx/guest_mode.h"
#include "mmu/vmx/physical_memory.h"
#include "mmu/vmx/vcpu.h"

namespace twinroot::sim {

// #PF on tables that the guest does not see: a VM exit.
struct ShadowPageFaultExit {
  uint32_t error_code = 0;
};

class ShadowProcessor : private mmu::GuestMemory {
 public:
  using Outcome = std::variant<mmu::vmx::AccessDone, ShadowPageFaultExit, mmu::vmx::MachineCheck>;

  // `memory` is not owned.
  ShadowProcessor(mmu::vmx::PhysicalMemory* memory, int maxphyaddr)
      : memory_(memory), maxphyaddr_(maxphyaddr) {}

  // Owner: CR3, and what of the guest's paging the processor itself applies: SMEP and SMAP. CR0.WP
  // is always set, keys are not offered. Forgets everything cached.
  void Load(mmu::Hpa root, const mmu::GuestPaging& guest);
  mmu::Hpa root() const { return root_; }
  // Owner. The address is cut to the width of the guest's.
  Outcome Access(const mmu::LinearAccess& access, int bytes, uint64_t value);
  // Owner: INVLPG.
  void Invalidate();
  // Any thread.
  void FlushAll();

 private:
  Outcome Inside(const mmu::LinearAccess& access, int bytes, uint64_t value);
  std::optional<uint64_t> Read(mmu::Gpa word, int bytes) override;
  Exchange CompareExchange(mmu::Gpa word, int bytes, uint64_t expected, uint64_t desired) override;

  mmu::vmx::PhysicalMemory* const memory_;
  const int maxphyaddr_;
  mmu::vmx::GuestMode guest_mode_;
  // The owner's.
  mmu::Hpa root_;
  std::optional<mmu::Ia32Paging> paging_;
  // The owner's in guest mode, else whoever has stopped it: from page, kind and mode to the frame.
  std::unordered_map<uint64_t, mmu::Hpa> tlb_;
};

}  // namespace twinroot::sim

#endif  // TWINROOT_DAEMON_VCPU_SIM_SHADOW_PROCESSOR_H_
