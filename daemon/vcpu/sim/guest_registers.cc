#include "daemon/vcpu/sim/guest_registers.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace twinroot::sim {
namespace {

using mmu::ControlRegisters;
using mmu::PagingMode;
using program::Register;

constexpr uint64_t kCr0Known =
    ControlRegisters::kCr0Pe | ControlRegisters::kCr0Wp | ControlRegisters::kCr0Pg;
constexpr uint64_t kCr4Known = ControlRegisters::kCr4Pse | ControlRegisters::kCr4Pae |
                               ControlRegisters::kCr4Pge | ControlRegisters::kCr4La57 |
                               ControlRegisters::kCr4Smep | ControlRegisters::kCr4Smap |
                               ControlRegisters::kCr4Pke;
constexpr uint64_t kEferKnown =
    ControlRegisters::kEferLme | ControlRegisters::kEferLma | ControlRegisters::kEferNxe;
// A change of these loads the PDPTE registers anew, under PAE.
constexpr uint64_t kCr4LoadsPdptes = ControlRegisters::kCr4Pse | ControlRegisters::kCr4Pae |
                                     ControlRegisters::kCr4Pge | ControlRegisters::kCr4Smep;

bool Ia32e(const ControlRegisters& registers) {
  return registers.efer & ControlRegisters::kEferLma;
}

std::optional<std::string> CheckCr0(uint64_t value, ControlRegisters& next) {
  if (value & ~kCr0Known) return "CR0 has bits that this processor does not know";
  const bool on = value & ControlRegisters::kCr0Pg;
  if (on && !(value & ControlRegisters::kCr0Pe)) return "CR0.PG needs CR0.PE";
  if (on && (next.efer & ControlRegisters::kEferLme) && !(next.cr4 & ControlRegisters::kCr4Pae)) {
    return "IA-32e paging needs CR4.PAE";
  }
  next.cr0 = value;
  next.efer = on && (next.efer & ControlRegisters::kEferLme)
                  ? next.efer | ControlRegisters::kEferLma
                  : next.efer & ~ControlRegisters::kEferLma;
  return std::nullopt;
}

std::optional<std::string> CheckCr4(uint64_t value, bool keys, ControlRegisters& next) {
  if (value & ~kCr4Known) return "CR4 has bits that this processor does not know";
  if ((value & ControlRegisters::kCr4Pke) && !keys) {
    return "CR4.PKE: guests on shadow tables have no protection keys; use a VM with mmu tdp";
  }
  const uint64_t changed = value ^ next.cr4;
  if (Ia32e(next) && (changed & (ControlRegisters::kCr4Pae | ControlRegisters::kCr4La57))) {
    return "CR4.PAE and CR4.LA57 stay as they are in IA-32e mode; clear CR0.PG first";
  }
  next.cr4 = value;
  return std::nullopt;
}

std::optional<std::string> CheckEfer(uint64_t value, ControlRegisters& next) {
  if (value & ~kEferKnown) return "EFER has bits that this processor does not know";
  if (((value ^ next.efer) & ControlRegisters::kEferLme) && (next.cr0 & ControlRegisters::kCr0Pg)) {
    return "EFER.LME stays as it is while CR0.PG is set";
  }
  // LMA is the processor's.
  next.efer = (value & ~ControlRegisters::kEferLma) | (next.efer & ControlRegisters::kEferLma);
  return std::nullopt;
}

}  // namespace

std::optional<std::string> GuestRegisters::Check(Register to, uint64_t value,
                                                 ControlRegisters& next) const {
  switch (to) {
    case Register::kCr0:
      return CheckCr0(value, next);
    case Register::kCr3:
      if (Ia32e(next) && value >> features_.maxphyaddr != 0) {
        return "CR3 has bits beyond the physical address width";
      }
      next.cr3 = value;
      return std::nullopt;
    case Register::kCr4:
      return CheckCr4(value, features_.keys, next);
    case Register::kEfer:
      return CheckEfer(value, next);
    case Register::kPkru:
      if (value >> 32 != 0) return "PKRU has 32 bits";
      next.pkru = static_cast<uint32_t>(value);
      return std::nullopt;
    case Register::kCpl:
    case Register::kEflagsAc:
      return std::nullopt;
  }
  return "no such register";
}

GuestRegisters::Outcome GuestRegisters::Move(
    Register to, uint64_t value,
    absl::FunctionRef<mmu::LoadPdptesOutcome(uint64_t cr3)> read_pdptes) {
  mmu::GuestPaging next = paging_;
  if (auto wrong = Check(to, value, next.registers)) return GeneralProtection{*std::move(wrong)};
  const ControlRegisters& before = paging_.registers;
  const ControlRegisters& after = next.registers;
  if (after.mode() == PagingMode::k32Bit && !features_.legacy) {
    return Refused{
        "32-bit paging does not go together with this VM's shared bit, which its tables cannot "
        "name; use PAE or 4 levels, or a VM with mmu shadow"};
  }
  if (after.mode() == PagingMode::kPae &&
      (before.mode() != PagingMode::kPae || to == Register::kCr3 ||
       ((before.cr4 ^ after.cr4) & kCr4LoadsPdptes))) {
    const mmu::LoadPdptesOutcome pdptes = read_pdptes(after.cr3);
    if (const auto* missing = std::get_if<mmu::GuestTableMissing>(&pdptes)) {
      return TableMissing{missing->entry};
    }
    if (std::holds_alternative<mmu::PdptesMalformed>(pdptes)) {
      return GeneralProtection{"a PDPTE has reserved bits"};
    }
    next.pdptes = std::get<mmu::Pdptes>(pdptes);
  }
  paging_ = next;
  if (to == Register::kCpl) user_ = value != 0;
  if (to == Register::kEflagsAc) eflags_ac_ = value != 0;
  return Moved{};
}

std::optional<uint64_t> LinearAddress(const mmu::GuestPaging& paging, uint64_t address) {
  if (!paging.on()) return address;
  const PagingMode mode = paging.registers.mode();
  if (mode == PagingMode::k32Bit || mode == PagingMode::kPae) return address & 0xFFFF'FFFF;
  const int unused = mode == PagingMode::k5Level ? 64 - 57 : 64 - 48;
  const auto extended = static_cast<uint64_t>(static_cast<int64_t>(address << unused) >> unused);
  if (extended != address) return std::nullopt;
  return address;
}

}  // namespace twinroot::sim
