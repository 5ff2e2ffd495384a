// Strong address types. Nothing converts by itself: a stolen bit can only hide in a Gpa or a HwGfn,
// and mmu/vm/gpa_layout is the only place that turns one kind into another.
#ifndef TWINROOT_MMU_TYPES_ADDRESS_H_
#define TWINROOT_MMU_TYPES_ADDRESS_H_

#include <compare>
#include <cstdint>

namespace twinroot::mmu {

inline constexpr int kPageShift = 12;
inline constexpr uint64_t kPageSize = uint64_t{1} << kPageShift;
inline constexpr uint64_t kPageOffsetMask = kPageSize - 1;

// One address or frame number; `Tag` keeps the kinds apart.
template <typename Tag>
struct AddressWord {
  uint64_t value = 0;

  constexpr AddressWord() = default;
  constexpr explicit AddressWord(uint64_t v) : value(v) {}
  friend constexpr auto operator<=>(AddressWord, AddressWord) = default;

  // Same kind, `n` units further. Units are bytes for addresses, frames for frame numbers.
  friend constexpr AddressWord operator+(AddressWord a, uint64_t n) {
    return AddressWord(a.value + n);
  }
  friend constexpr AddressWord operator-(AddressWord a, uint64_t n) {
    return AddressWord(a.value - n);
  }
  // Distance in units; the caller knows that a >= b.
  friend constexpr uint64_t operator-(AddressWord a, AddressWord b) { return a.value - b.value; }
};

// What the guest uses and the processor reports; may carry stolen bits.
using Gpa = AddressWord<struct GpaTag>;
// Guest frame without stolen bits: the key of memslots, attributes and every user-facing call.
using Gfn = AddressWord<struct GfnTag>;
// Guest frame as the table walk indexes it: with the stolen bits that take part in the walk.
using HwGfn = AddressWord<struct HwGfnTag>;
// Address in the daemon's own physical space.
using Hpa = AddressWord<struct HpaTag>;
// Frame number in that space.
using Pfn = AddressWord<struct PfnTag>;

constexpr Pfn PfnOf(Hpa hpa) { return Pfn(hpa.value >> kPageShift); }
constexpr Hpa HpaOf(Pfn pfn) { return Hpa(pfn.value << kPageShift); }

static_assert(sizeof(Gpa) == sizeof(uint64_t));

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TYPES_ADDRESS_H_
