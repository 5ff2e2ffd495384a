// One virtual processor's memory accesses: TLB or walk, then the bytes.
//
// Thread-safe: one thread makes accesses, any thread may flush. One mutex is held over each whole
// access, so a flush returns only when no access still uses what it forgot. The mutex is a leaf
// lock: nothing is called with it held but PhysicalMemory::At. A flush goes before the next access,
// or a guest in a tight loop would hold it off.
#ifndef TWINROOT_MMU_VMX_VCPU_H_
#define TWINROOT_MMU_VMX_VCPU_H_

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <variant>

#include "mmu/hw/ept_capabilities.h"
#include "mmu/hw/ept_pointer.h"
#include "mmu/types/access.h"
#include "mmu/types/address.h"
#include "mmu/types/memory_kind.h"
#include "mmu/vmx/ept_walker.h"
#include "mmu/vmx/physical_memory.h"
#include "mmu/vmx/tlb.h"

namespace twinroot::mmu::vmx {

// The access was made; `value` is what was read or fetched, zero-extended.
struct AccessDone {
  uint64_t value = 0;
};
using AccessOutcome =
    std::variant<AccessDone, EptViolationExit, EptMisconfigurationExit, MachineCheck>;

class Vcpu {
 public:
  // `memory` is not owned.
  Vcpu(PhysicalMemory* memory, const EptCapabilities& capabilities, int maxphyaddr)
      : memory_(memory), walker_(memory, capabilities, maxphyaddr) {}

  // The two-root arrangement: the shared bit of an address selects the root and stays part of the
  // walk. Without a shared bit every access goes through `private_root`. Both passed the checks of
  // VM entry. Before the first access; forgets everything cached.
  void LoadRoots(EptPointer private_root, EptPointer shared_root, std::optional<int> shared_bit);

  // The address of the same byte through an alias; without a shared bit there is only one.
  Gpa AliasOf(Gpa unaliased, MemoryKind alias);

  // `size` is 1, 2, 4 or 8 and `gpa`, raw as the processor sees it, is a multiple of it.
  AccessOutcome Read(Gpa gpa, int size);
  // Writes the low `size` bytes of `value`.
  AccessOutcome Write(Gpa gpa, int size, uint64_t value);
  // The instruction byte at `gpa`.
  AccessOutcome Fetch(Gpa gpa);

  void FlushRange(MemoryKind root, HwGfn first, uint64_t count);
  void FlushAll();

 private:
  AccessOutcome Make(Gpa gpa, Access needed, int size, uint64_t value);
  MemoryKind RootOf(Gpa gpa) const;
  // Locks mutex_.
  std::unique_lock<std::mutex> LockForAccess();
  std::unique_lock<std::mutex> LockForFlush();

  PhysicalMemory* const memory_;
  const EptWalker walker_;

  std::atomic<int> flushes_waiting_{0};
  std::mutex mutex_;
  // Guarded by mutex_.
  Tlb tlb_;
  EptPointer roots_[2];
  uint64_t shared_mask_ = 0;
};

}  // namespace twinroot::mmu::vmx

#endif  // TWINROOT_MMU_VMX_VCPU_H_
