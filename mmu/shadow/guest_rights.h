// What a guest's own tables grant: the AND over a walk, or one entry's share of it. A plain value
// of three bits, as shadowed translations and roles keep them (B4).
#ifndef TWINROOT_MMU_SHADOW_GUEST_RIGHTS_H_
#define TWINROOT_MMU_SHADOW_GUEST_RIGHTS_H_

#include <cstdint>

#include "mmu/types/access.h"

namespace twinroot::mmu {

class GuestRights {
 public:
  constexpr GuestRights() = default;
  static constexpr GuestRights None() { return GuestRights(0); }
  static constexpr GuestRights Execute() { return GuestRights(1); }
  static constexpr GuestRights Write() { return GuestRights(2); }
  // A user-mode address; of a nested EPT: readable.
  static constexpr GuestRights User() { return GuestRights(4); }
  static constexpr GuestRights All() { return GuestRights(7); }
  static constexpr GuestRights FromBits(uint64_t bits) {
    return GuestRights(static_cast<uint8_t>(bits & 7));
  }

  constexpr uint8_t bits() const { return bits_; }
  constexpr bool execute() const { return bits_ & 1; }
  constexpr bool write() const { return bits_ & 2; }
  constexpr bool user() const { return bits_ & 4; }
  constexpr bool empty() const { return bits_ == 0; }
  constexpr bool Includes(GuestRights other) const { return (bits_ & other.bits_) == other.bits_; }

  friend constexpr GuestRights operator|(GuestRights a, GuestRights b) {
    return FromBits(a.bits_ | b.bits_);
  }
  friend constexpr GuestRights operator&(GuestRights a, GuestRights b) {
    return FromBits(a.bits_ & b.bits_);
  }
  friend constexpr bool operator==(GuestRights, GuestRights) = default;

 private:
  constexpr explicit GuestRights(uint8_t bits) : bits_(bits) {}
  uint8_t bits_ = 0;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_SHADOW_GUEST_RIGHTS_H_
