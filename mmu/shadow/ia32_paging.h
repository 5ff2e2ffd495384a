// The paging of IA-32 as a policy of the guest walker: 32-bit, PAE, 4 and 5 levels; what entries
// mean under the guest's control registers and which accesses they let through (SDM vol. 3A,
// "Determination of Access Rights", "Protection Keys", "Page-Fault Exceptions"). An AMD
// hypervisor's nested tables have the same formats: every access there is a user access, PDPTEs are
// read from memory, and there are no keys (`Nested`).
//
// A plain value, immutable.
#ifndef TWINROOT_MMU_SHADOW_IA32_PAGING_H_
#define TWINROOT_MMU_SHADOW_IA32_PAGING_H_

#include <array>
#include <cstdint>
#include <optional>
#include <variant>

#include "mmu/hw/control_registers.h"
#include "mmu/hw/ept_violation.h"
#include "mmu/hw/guest_pte.h"
#include "mmu/hw/pae_pdpte.h"
#include "mmu/shadow/guest_memory.h"
#include "mmu/shadow/guest_rights.h"
#include "mmu/shadow/guest_walk.h"
#include "mmu/types/access.h"

namespace twinroot::mmu {

// What the guest's processor can do.
struct GuestCpuFeatures {
  bool page_1g = true;
  bool pse36 = true;
  int maxphyaddr = 52;
};

// `address` passed what comes before paging: segment limits, canonicality.
struct LinearAccess {
  uint64_t address = 0;
  Access needed;  // read, write or fetch
  LinearMode mode = LinearMode::kSupervisor;
  // To a system structure (GDT, TSS, ...): supervisor, whatever the CPL and EFLAGS.AC.
  bool implicit = false;
  bool eflags_ac = false;
};

using Pdptes = std::array<PaePdpte, 4>;

class Ia32Paging {
 public:
  using Request = LinearAccess;
  using Entry = GuestPte;

  // Paging is on. `pdptes`: the registers, of PAE.
  Ia32Paging(const ControlRegisters& registers, const GuestCpuFeatures& features,
             const Pdptes& pdptes = {})
      : Ia32Paging(registers, features, pdptes, false) {}
  // The tables at nCR3, `registers` being those of their maker.
  static Ia32Paging Nested(ControlRegisters registers, const GuestCpuFeatures& features) {
    registers.cr4 &= ~(ControlRegisters::kCr4Pke | ControlRegisters::kCr4Pks);
    return Ia32Paging(registers, features, {}, true);
  }

  const GuestPteFormat& format() const { return format_; }
  const ControlRegisters& registers() const { return registers_; }
  bool nested() const { return nested_; }

  // The policy of the walker (guest_walker.cc).
  std::optional<GuestWalkOutcome> Start(GuestMemory& memory, Request& access, Gpa& table) const;
  Level top() const { return format_.top(); }
  Gpa SlotOf(Gpa table, const Request& access, Level level) const {
    return table + format_.IndexOf(access.address, level) * entry_bytes();
  }
  unsigned entry_bytes() const { return static_cast<unsigned>(format_.entry_bytes()); }
  bool Present(Entry entry) const { return entry.present(); }
  bool Malformed(Entry entry, Level level) const { return format_.ReservedBits(entry, level) != 0; }
  bool IsLeaf(Entry entry, Level level) const { return format_.IsLeaf(entry, level); }
  Gpa AddressOf(Entry entry, Level level) const { return format_.AddressOf(entry, level); }
  uint64_t BytesOf(Level level) const { return uint64_t{1} << format_.ShiftOf(level); }
  // One entry's share of the rights.
  GuestRights RightsOf(Entry entry) const {
    return (entry.writable() ? GuestRights::Write() : GuestRights::None()) |
           (entry.user() ? GuestRights::User() : GuestRights::None()) |
           (format_.is_32bit() || !registers_.nxe() || !entry.no_execute() ? GuestRights::Execute()
                                                                           : GuestRights::None());
  }
  std::optional<GuestWalkOutcome> Refuse(const Request& access, GuestRights rights,
                                         Entry leaf) const;
  GuestWalkOutcome NotPresent(const Request& access) const { return Fault(access, 0); }
  GuestWalkOutcome Broken(const Request& access, Level) const {
    return Fault(access, PageFaultError::kPresent | PageFaultError::kReserved);
  }
  // Which flags a used entry has to have.
  uint64_t FlagsOf(const Request& access, bool leaf) const {
    return GuestPte::kAccessed | (leaf && access.needed.write() ? GuestPte::kDirty : 0);
  }
  bool DirtyIn(Entry leaf) const { return leaf.dirty(); }

 private:
  Ia32Paging(const ControlRegisters& registers, const GuestCpuFeatures& features,
             const Pdptes& pdptes, bool nested);
  GuestPageFault Fault(const Request& access, uint32_t why) const;
  bool KeyDenies(const Request& access, bool user_page, unsigned key) const;

  ControlRegisters registers_;
  int maxphyaddr_;
  GuestPteFormat format_;
  Pdptes pdptes_;
  bool nested_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_SHADOW_IA32_PAGING_H_
