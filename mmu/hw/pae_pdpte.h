// The four entries at the top of PAE paging (SDM vol. 3A, "PDPTE Registers"): P, PWT, PCD and an
// address. They carry no rights and no flags: what other entries keep in 2:1, 8:5 and 63 is
// reserved. Plain values.
#ifndef TWINROOT_MMU_HW_PAE_PDPTE_H_
#define TWINROOT_MMU_HW_PAE_PDPTE_H_

#include <cstdint>

#include "mmu/types/address.h"

namespace twinroot::mmu {

class PaePdpte {
 public:
  static constexpr uint64_t kPresent = uint64_t{1} << 0;
  static constexpr uint64_t kAddressMask = 0x000F'FFFF'FFFF'F000;
  static constexpr uint64_t kLowReserved = 0x1E6;  // 2:1, 8:5
  static constexpr int kIndexShift = 30;           // of a linear address; 31:30

  constexpr PaePdpte() = default;
  constexpr explicit PaePdpte(uint64_t raw) : raw_(raw) {}

  constexpr uint64_t raw() const { return raw_; }
  constexpr bool present() const { return raw_ & kPresent; }
  constexpr Gpa address() const { return Gpa(raw_ & kAddressMask); }
  // What MOV to CR3 and VM entry refuse (C5): an entry that is not present is never refused.
  constexpr bool Malformed(int maxphyaddr) const {
    return present() && (raw_ & (kLowReserved | ~uint64_t{0} << maxphyaddr)) != 0;
  }
  static constexpr unsigned IndexOf(uint64_t linear) { return linear >> kIndexShift & 3; }
  // Where the table of four that CR3 names begins.
  static constexpr Gpa TableAt(uint64_t cr3) { return Gpa(cr3 & 0xFFFF'FFE0); }
  friend constexpr bool operator==(PaePdpte, PaePdpte) = default;

 private:
  uint64_t raw_ = 0;
};

static_assert(!PaePdpte(0x1E6).Malformed(52) && PaePdpte(0x5003).Malformed(52));
static_assert(!PaePdpte(0x5E19).Malformed(52) && PaePdpte(uint64_t{1} << 52 | 1).Malformed(52));

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_HW_PAE_PDPTE_H_
