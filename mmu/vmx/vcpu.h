// One virtual processor's memory accesses: TLB or walk, then the bytes.
//
// Thread-safe: one thread, the owner, makes accesses; any thread may flush, take the log or change
// controls. Those stop the vCPU (guest_mode.h): they return only when no access still uses what
// they changed, and they go before the next access. So nothing that the vCPU calls in an access
// (that is PhysicalMemory::At) may wait for them. A translation stays cached until it is flushed,
// however wrong the tables have made it since.
//
// An access by itself enters and leaves guest mode. An owner that makes many stays inside between
// EnterGuest and LeaveGuest; see there for what it promises.
#ifndef TWINROOT_MMU_VMX_VCPU_H_
#define TWINROOT_MMU_VMX_VCPU_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "mmu/hw/ept_capabilities.h"
#include "mmu/hw/ept_pointer.h"
#include "mmu/types/access.h"
#include "mmu/types/address.h"
#include "mmu/types/guest_word.h"
#include "mmu/types/memory_kind.h"
#include "mmu/vmx/access_tlb.h"
#include "mmu/vmx/ept_walker.h"
#include "mmu/vmx/guest_mode.h"
#include "mmu/vmx/physical_memory.h"
#include "mmu/vmx/pml.h"
#include "mmu/vmx/tlb.h"

namespace twinroot::mmu::vmx {

// The access was made; `value` is what was read or fetched, zero-extended.
struct AccessDone {
  uint64_t value = 0;
};
// #VE in place of an EPT violation: the guest's own handler is next, not the hypervisor.
struct VirtualizationException {
  Gpa gpa;  // raw
  EptViolation qualification;
};
using AccessOutcome = std::variant<AccessDone, EptViolationExit, EptMisconfigurationExit,
                                   MachineCheck, PmlFullExit, VirtualizationException>;

class Vcpu {
 public:
  // `memory` is not owned.
  Vcpu(PhysicalMemory* memory, const EptCapabilities& capabilities, int maxphyaddr)
      : memory_(memory), walker_(memory, capabilities, maxphyaddr) {}

  // Any thread. The two-root arrangement: the shared bit of an address selects the root and stays
  // part of the walk. Without a shared bit every access goes through `private_root`. Both passed
  // the checks of VM entry. Before the first access; forgets everything cached.
  void LoadRoots(EptPointer private_root, EptPointer shared_root, std::optional<int> shared_bit);

  // Any thread. The address of the same byte through an alias; without a shared bit there is only
  // one.
  Gpa AliasOf(Gpa unaliased, MemoryKind alias) const;

  // Owner. `size` is 1, 2, 4 or 8 and `gpa`, raw as the processor sees it, is a multiple of it.
  AccessOutcome Read(Gpa gpa, int size);
  // Writes the low `size` bytes of `value`.
  AccessOutcome Write(Gpa gpa, int size, uint64_t value);
  // The instruction byte at `gpa`, in the current mode.
  AccessOutcome Fetch(Gpa gpa);
  // The processor's own read of a guest paging-structure entry of 4 or 8 bytes: counts as a write
  // where A/D flags are on, though the bytes are only read.
  AccessOutcome ReadGuestPagingEntry(Gpa gpa, int size = 8);
  // Its own write of flags there, if the entry still is `expected`; done or not, `value` of what is
  // returned is what stood there.
  AccessOutcome ExchangeGuestPagingEntry(Gpa gpa, int size, uint64_t expected, uint64_t desired);

  // Owner. Until LeaveGuest or an outcome other than AccessDone (every exit leaves), accesses are
  // cheaper and a flush waits for the owner's NEXT access or its leaving. So between two accesses
  // the owner does nothing that may block or take long, and calls no function here that is for "any
  // thread".
  void EnterGuest();
  void LeaveGuest();

  // Owner. Which right fetches need under mode-based execute control; supervisor mode at first.
  void SetMode(LinearMode mode);

  // Any thread. The "EPT-violation #VE" control; off at first.
  void SetEptViolationVe(bool enabled);
  // Owner: the guest's handler clears the virtualization-exception information area. Until then
  // further convertible violations exit (SDM, "Virtualization Exceptions": the 32 bits at offset 4
  // are all 0).
  void ClearVeInformation() { ve_information_busy_ = false; }

  // Any thread. From now on dirty flags that are set are logged too; needs A/D flags. Flags that
  // are set already are not: clear them and flush first. Disabling keeps what TakePml has not
  // taken.
  void EnablePml();
  void DisablePml();
  // Any thread. What was logged, page by page, oldest first; room for 512 again. Whoever clears
  // dirty flags and takes afterwards misses nothing: a flag and its entry are made in one access.
  std::vector<Gpa> TakePml();

  // Any thread.
  void FlushRange(MemoryKind root, HwGfn first, uint64_t count);
  void FlushAll();

 private:
  // `expected`: of a write to a guest paging-structure entry.
  AccessOutcome Make(const GuestAccess& access, int size, uint64_t value, uint64_t expected = 0);
  AccessOutcome MakeInside(const GuestAccess& access, int size, uint64_t value, uint64_t expected);
  AccessOutcome Refuse(Hpa root, const EptViolationExit& violation);
  bool Serves(const EptTranslation& translation, Access needed) const;
  EptPointer RootOf(Gpa gpa) const;
  // In guest mode already, and nobody wants in.
  bool MayGoOn() const { return staying_ && !guest_mode_.stop_requested(); }

  PhysicalMemory* const memory_;
  const EptWalker walker_;

  GuestMode guest_mode_;
  // The owner's alone.
  bool staying_ = false;
  bool ve_information_busy_ = false;
  LinearMode mode_ = LinearMode::kSupervisor;
  // Written once, before the first access.
  std::atomic<uint64_t> shared_mask_{0};
  // The owner's in guest mode, else whoever has stopped it.
  bool ept_violation_ve_ = false;
  bool pml_enabled_ = false;
  EptPointer roots_[2];
  AccessTlb access_tlb_;
  Tlb tlb_;
  std::unique_ptr<PageModificationLog> pml_;
};

inline AccessOutcome Vcpu::Read(Gpa gpa, int size) {
  if (MayGoOn() && access_tlb_.Hits(AccessKind::kRead, gpa)) {
    return AccessDone{LoadGuestWord(access_tlb_.HostOf(gpa), size)};
  }
  return Make({gpa, Access::Read(), mode_}, size, 0);
}

inline AccessOutcome Vcpu::Write(Gpa gpa, int size, uint64_t value) {
  if (MayGoOn() && access_tlb_.Hits(AccessKind::kWrite, gpa)) {
    StoreGuestWord(access_tlb_.HostOf(gpa), size, value);
    return AccessDone{value};
  }
  return Make({gpa, Access::Write(), mode_}, size, value);
}

inline AccessOutcome Vcpu::Fetch(Gpa gpa) {
  if (MayGoOn() && access_tlb_.Hits(AccessKind::kFetch, gpa)) {
    return AccessDone{LoadGuestWord(access_tlb_.HostOf(gpa), 1)};
  }
  return Make({gpa, Access::Fetch(), mode_}, 1, 0);
}

}  // namespace twinroot::mmu::vmx

#endif  // TWINROOT_MMU_VMX_VCPU_H_
