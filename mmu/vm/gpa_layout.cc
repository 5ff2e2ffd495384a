#include "mmu/vm/gpa_layout.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace twinroot::mmu {
namespace {

constexpr uint64_t Bit(int position) { return uint64_t{1} << position; }
constexpr uint64_t MaskOf(std::optional<int> bit) { return bit ? Bit(*bit) : 0; }

constexpr int kLowestSharedBit = 32;
constexpr int kLowestExecuteOnlyBit = 39;

absl::Status CheckStolenBit(const char* name, int bit, int lowest, int walk_bits) {
  if (bit >= lowest && bit < walk_bits) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(name, " bit ", bit, " is not within bits ", lowest,
                                                 " to ", walk_bits - 1, " of a walk of ", walk_bits,
                                                 " bits; move the bit or take 5 levels"));
}

}  // namespace

absl::StatusOr<GpaLayout> GpaLayout::Create(std::optional<int> shared_bit, int walk_bits,
                                            int guest_maxphyaddr,
                                            std::optional<int> execute_only_bit) {
  if (walk_bits != 48 && walk_bits != 57) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a table walk is 48 bits (4 levels) or 57 bits (5 levels) wide, not ", walk_bits));
  }
  if (guest_maxphyaddr < 36 || guest_maxphyaddr > 52) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the guest's physical address width is 36 to 52 bits, not ", guest_maxphyaddr));
  }
  if (shared_bit) {
    absl::Status status = CheckStolenBit("shared", *shared_bit, kLowestSharedBit, walk_bits);
    if (!status.ok()) return status;
  }
  if (execute_only_bit) {
    absl::Status status =
        CheckStolenBit("execute-only", *execute_only_bit, kLowestExecuteOnlyBit, walk_bits);
    if (!status.ok()) return status;
    if (execute_only_bit == shared_bit) {
      return absl::InvalidArgumentError(
          absl::StrCat("bit ", *shared_bit, " cannot be both the shared and the execute-only bit"));
    }
  }
  return GpaLayout(shared_bit, walk_bits, guest_maxphyaddr, execute_only_bit);
}

GpaLayout::GpaLayout(std::optional<int> shared_bit, int walk_bits, int guest_maxphyaddr,
                     std::optional<int> execute_only_bit)
    : shared_bit_(shared_bit),
      execute_only_bit_(execute_only_bit),
      walk_bits_(walk_bits),
      guest_maxphyaddr_(guest_maxphyaddr),
      shared_mask_(MaskOf(shared_bit)),
      execute_only_mask_(MaskOf(execute_only_bit)),
      stolen_mask_(shared_mask_ | execute_only_mask_),
      reserved_mask_(~(Bit(std::min(guest_maxphyaddr, walk_bits)) - 1) & ~stolen_mask_) {}

absl::Status GpaLayout::CheckReserved(Gpa gpa) const {
  // The stolen bits go first: one may lie beyond the guest's physical address width (A3).
  if (!HasReservedBits(gpa)) return absl::OkStatus();
  const uint64_t stripped = gpa.value & ~stolen_mask_;
  const int width = std::min(guest_maxphyaddr_, walk_bits_);
  return absl::InvalidArgumentError(absl::StrCat("address 0x", absl::Hex(stripped),
                                                 " has bits beyond the guest's physical "
                                                 "address width of ",
                                                 width));
}

HwGfn GpaLayout::HwGfnOf(Gfn gfn, MemoryKind alias, bool execute_only) const {
  const uint64_t bits =
      (alias == MemoryKind::kShared ? shared_mask_ : 0) | (execute_only ? execute_only_mask_ : 0);
  return HwGfn(gfn.value | bits >> kPageShift);
}

Gfn GpaLayout::GfnOf(HwGfn hw_gfn) const {
  return Gfn(hw_gfn.value & ~(stolen_mask_ >> kPageShift));
}

Gpa GpaLayout::GpaOf(Gfn gfn, MemoryKind alias, uint64_t offset) const {
  return Gpa((HwGfnOf(gfn, alias).value << kPageShift) + offset);
}

Gfn GpaLayout::gfn_limit() const {
  const int width = std::min({guest_maxphyaddr_, walk_bits_, shared_bit_.value_or(walk_bits_),
                              execute_only_bit_.value_or(walk_bits_)});
  return Gfn(Bit(width - kPageShift));
}

}  // namespace twinroot::mmu
