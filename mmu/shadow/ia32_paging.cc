#include "mmu/shadow/ia32_paging.h"

namespace twinroot::mmu {

Ia32Paging::Ia32Paging(const ControlRegisters& registers, const GuestCpuFeatures& features,
                       const Pdptes& pdptes, bool nested)
    : registers_(registers),
      maxphyaddr_(features.maxphyaddr),
      format_({.mode = registers.mode(),
               .large_pages = (registers.cr4 & ControlRegisters::kCr4Pse) != 0,
               .execute_disable = registers.nxe(),
               .page_1g = features.page_1g,
               .pse36 = features.pse36,
               .maxphyaddr = features.maxphyaddr}),
      pdptes_(pdptes),
      nested_(nested) {}

std::optional<GuestWalkOutcome> Ia32Paging::Start(GuestMemory& memory, Request& access,
                                                  Gpa& table) const {
  access.address &= format_.LinearMask();
  if (nested_) access.mode = LinearMode::kUser;
  if (format_.mode() != PagingMode::kPae) {
    table = Gpa(registers_.cr3 & (format_.is_32bit() ? 0xFFFF'F000 : GuestPte::kAddressMask));
    return std::nullopt;
  }
  const unsigned index = PaePdpte::IndexOf(access.address);
  PaePdpte pdpte = pdptes_[index];
  if (nested_) {
    const Gpa at = PaePdpte::TableAt(registers_.cr3) + index * sizeof(uint64_t);
    const std::optional<uint64_t> word = memory.Read(at, sizeof(uint64_t));
    if (!word) return GuestTableMissing{at};
    pdpte = PaePdpte(*word);
  }
  if (!pdpte.present()) return NotPresent(access);
  // Registers were checked when they were loaded.
  if (pdpte.Malformed(maxphyaddr_)) return Broken(access, Level::k1G);
  table = pdpte.address();
  return std::nullopt;
}

GuestPageFault Ia32Paging::Fault(const Request& access, uint32_t why) const {
  const bool fetches_may_fault =
      registers_.smep() || ((registers_.cr4 & ControlRegisters::kCr4Pae) && registers_.nxe());
  return {access.address,
          why | (access.needed.write() ? PageFaultError::kWrite : 0) |
              (access.mode == LinearMode::kUser ? PageFaultError::kUser : 0) |
              (access.needed.fetch() && fetches_may_fault ? PageFaultError::kFetch : 0)};
}

bool Ia32Paging::KeyDenies(const Request& access, bool user_page, unsigned key) const {
  if (!format_.has_keys() || access.needed.fetch()) return false;
  const uint64_t enabled = user_page ? ControlRegisters::kCr4Pke : ControlRegisters::kCr4Pks;
  if (!(registers_.cr4 & enabled)) return false;
  const uint32_t denied = (user_page ? registers_.pkru : registers_.pkrs) >> (2 * key) & 3;
  if (denied & 1) return true;
  return (denied & 2) && access.needed.write() &&
         (access.mode == LinearMode::kUser || registers_.wp());
}

std::optional<GuestWalkOutcome> Ia32Paging::Refuse(const Request& access, GuestRights rights,
                                                   Entry leaf) const {
  const bool user_page = rights.user();
  bool allowed = true;
  if (access.mode == LinearMode::kUser) {
    allowed = user_page && (!access.needed.write() || rights.write()) &&
              (!access.needed.fetch() || rights.execute());
  } else if (access.needed.fetch()) {
    allowed = rights.execute() && !(user_page && registers_.smep());
  } else {
    allowed = (!access.needed.write() || rights.write() || !registers_.wp()) &&
              !(user_page && registers_.smap() && (access.implicit || !access.eflags_ac));
  }
  const bool key_denies = KeyDenies(access, user_page, leaf.key());
  if (allowed && !key_denies) return std::nullopt;
  return Fault(access, PageFaultError::kPresent | (key_denies ? PageFaultError::kKey : 0));
}

}  // namespace twinroot::mmu
