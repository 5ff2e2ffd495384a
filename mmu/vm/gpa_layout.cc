#include "mmu/vm/gpa_layout.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace twinroot::mmu {
namespace {

constexpr uint64_t Bit(int position) { return uint64_t{1} << position; }

}  // namespace

absl::StatusOr<GpaLayout> GpaLayout::Create(std::optional<int> shared_bit, int walk_bits,
                                            int guest_maxphyaddr) {
  if (walk_bits != 48 && walk_bits != 57) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a table walk is 48 bits (4 levels) or 57 bits (5 levels) wide, not ", walk_bits));
  }
  if (guest_maxphyaddr < 36 || guest_maxphyaddr > 52) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the guest's physical address width is 36 to 52 bits, not ", guest_maxphyaddr));
  }
  if (shared_bit && (*shared_bit < 32 || *shared_bit >= walk_bits)) {
    return absl::InvalidArgumentError(
        absl::StrCat("shared bit ", *shared_bit, " is not within bits 32 to ", walk_bits - 1,
                     " of a walk of ", walk_bits, " bits; move the bit or take 5 levels"));
  }
  return GpaLayout(shared_bit, walk_bits, guest_maxphyaddr);
}

GpaLayout::GpaLayout(std::optional<int> shared_bit, int walk_bits, int guest_maxphyaddr)
    : shared_bit_(shared_bit),
      walk_bits_(walk_bits),
      guest_maxphyaddr_(guest_maxphyaddr),
      stolen_mask_(shared_bit ? Bit(*shared_bit) : 0) {}

absl::Status GpaLayout::CheckReserved(Gpa gpa) const {
  // The stolen bits go first: one may lie beyond the guest's physical address width (A3).
  const uint64_t stripped = gpa.value & ~stolen_mask_;
  const int width = std::min(guest_maxphyaddr_, walk_bits_);
  if (stripped >> width == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("address 0x", absl::Hex(stripped),
                                                 " has bits beyond the guest's physical "
                                                 "address width of ",
                                                 width));
}

bool GpaLayout::HasStolenBits(Gpa gpa) const { return (gpa.value & stolen_mask_) != 0; }

MemoryKind GpaLayout::KindOf(Gpa gpa) const {
  return HasStolenBits(gpa) ? MemoryKind::kShared : MemoryKind::kPrivate;
}

Gfn GpaLayout::GfnOf(Gpa gpa) const { return Gfn((gpa.value & ~stolen_mask_) >> kPageShift); }

HwGfn GpaLayout::HwGfnOf(Gfn gfn, MemoryKind alias) const {
  return HwGfn(gfn.value | (alias == MemoryKind::kShared ? stolen_mask_ >> kPageShift : 0));
}

Gfn GpaLayout::GfnOf(HwGfn hw_gfn) const {
  return Gfn(hw_gfn.value & ~(stolen_mask_ >> kPageShift));
}

Gpa GpaLayout::GpaOf(Gfn gfn, MemoryKind alias, uint64_t offset) const {
  return Gpa((HwGfnOf(gfn, alias).value << kPageShift) + offset);
}

Gfn GpaLayout::gfn_limit() const {
  const int width = std::min({guest_maxphyaddr_, walk_bits_, shared_bit_.value_or(walk_bits_)});
  return Gfn(Bit(width - kPageShift));
}

}  // namespace twinroot::mmu
