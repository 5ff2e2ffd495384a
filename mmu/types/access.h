// Rights of an entry, and the kind of one access.
#ifndef TWINROOT_MMU_TYPES_ACCESS_H_
#define TWINROOT_MMU_TYPES_ACCESS_H_

#include <cstdint>

namespace twinroot::mmu {

// A set of rights: what an entry grants, or what an access needs.
class Access {
 public:
  constexpr Access() = default;
  static constexpr Access None() { return Access(0); }
  static constexpr Access Read() { return Access(1); }
  static constexpr Access Write() { return Access(2); }
  static constexpr Access Fetch() { return Access(4); }
  static constexpr Access All() { return Access(7); }

  constexpr bool Includes(Access other) const { return (bits_ & other.bits_) == other.bits_; }
  // Read 1, write 2, fetch 4: as the rights lie in an EPT entry.
  static constexpr Access FromBits(uint8_t bits) { return Access(bits & 7); }
  constexpr uint8_t bits() const { return bits_; }

  constexpr bool empty() const { return bits_ == 0; }
  constexpr Access Without(Access other) const {
    return Access(static_cast<uint8_t>(bits_ & ~other.bits_));
  }
  constexpr bool read() const { return bits_ & 1; }
  constexpr bool write() const { return bits_ & 2; }
  constexpr bool fetch() const { return bits_ & 4; }

  friend constexpr Access operator|(Access a, Access b) { return Access(a.bits_ | b.bits_); }
  friend constexpr Access operator&(Access a, Access b) { return Access(a.bits_ & b.bits_); }
  friend constexpr bool operator==(Access, Access) = default;

 private:
  constexpr explicit Access(uint8_t bits) : bits_(bits) {}
  uint8_t bits_ = 0;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TYPES_ACCESS_H_
