// The registers of a sim vCPU by which it translates, and what moving to them does (SDM vol. 3A,
// "Paging-Mode Enabling", "Control Registers", "PDPTE Registers"). Not thread-safe: the vCPU's.
//
// Until CR0.PG is set an address is the guest-physical one at full width, as in the flat map that
// programs run in on kvm.
#ifndef TWINROOT_DAEMON_VCPU_SIM_GUEST_REGISTERS_H_
#define TWINROOT_DAEMON_VCPU_SIM_GUEST_REGISTERS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "absl/functional/function_ref.h"
#include "daemon/vcpu/program/op.h"
#include "mmu/vm/shadow_fault.h"

namespace twinroot::sim {

class GuestRegisters {
 public:
  struct Features {
    int maxphyaddr = 52;
    bool keys = true;    // CR4.PKE
    bool legacy = true;  // 32-bit paging without PAE (A6)
  };
  explicit GuestRegisters(const Features& features) : features_(features) {}

  const mmu::GuestPaging& paging() const { return paging_; }
  bool user() const { return user_; }
  bool eflags_ac() const { return eflags_ac_; }

  struct Moved {};            // `paging` may have changed
  struct GeneralProtection {  // #GP(0); nothing changed
    std::string why;
  };
  struct Refused {  // this VM cannot go on like that
    std::string why;
  };
  struct TableMissing {  // PDPTEs lie where no memory is
    mmu::Gpa gpa;
  };
  using Outcome = std::variant<Moved, GeneralProtection, Refused, TableMissing>;
  // `read_pdptes`: as mmu::LoadPdptes.
  Outcome Move(program::Register to, uint64_t value,
               absl::FunctionRef<mmu::LoadPdptesOutcome(uint64_t cr3)> read_pdptes);

 private:
  // What the registers would be; or why not.
  std::optional<std::string> Check(program::Register to, uint64_t value,
                                   mmu::ControlRegisters& next) const;

  const Features features_;
  mmu::GuestPaging paging_;
  bool user_ = false;
  bool eflags_ac_ = false;
};

// What of an address can be used: nullopt, if it is not canonical.
std::optional<uint64_t> LinearAddress(const mmu::GuestPaging& paging, uint64_t address);

}  // namespace twinroot::sim

#endif  // TWINROOT_DAEMON_VCPU_SIM_GUEST_REGISTERS_H_
