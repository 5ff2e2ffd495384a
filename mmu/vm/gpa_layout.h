// Which bits of a GPA are stolen, and the only converter between Gpa, Gfn and HwGfn.
// Behaviours A1, A2, A3. Immutable.
#ifndef TWINROOT_MMU_VM_GPA_LAYOUT_H_
#define TWINROOT_MMU_VM_GPA_LAYOUT_H_

#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu/types/address.h"
#include "mmu/types/memory_kind.h"

namespace twinroot::mmu {

class GpaLayout {
 public:
  // `shared_bit`: position of the bit that selects the shared root; nullopt for a VM without one.
  // `walk_bits`: width of the table walk, 48 (4 levels) or 57 (5 levels).
  // `guest_maxphyaddr`: the guest's physical address width, 36 to 52.
  // `execute_only_bit`: position of the bit that names the execute-only alias (A10); nullopt: none.
  // kInvalidArgument: a stolen bit is not inside the walk, or below bit 32 (39 for the execute-only
  // alias, which shares its root's top table only), or both are one.
  static absl::StatusOr<GpaLayout> Create(std::optional<int> shared_bit, int walk_bits,
                                          int guest_maxphyaddr,
                                          std::optional<int> execute_only_bit = std::nullopt);

  // kInvalidArgument: a bit that is neither stolen nor inside the guest's physical address width
  // or the walk (A3).
  absl::Status CheckReserved(Gpa gpa) const;
  bool HasReservedBits(Gpa gpa) const { return (gpa.value & reserved_mask_) != 0; }

  bool HasStolenBits(Gpa gpa) const { return (gpa.value & stolen_mask_) != 0; }
  // kPrivate when there is no shared bit.
  MemoryKind KindOf(Gpa gpa) const {
    return gpa.value & shared_mask_ ? MemoryKind::kShared : MemoryKind::kPrivate;
  }
  // Stolen bits removed.
  Gfn GfnOf(Gpa gpa) const { return Gfn((gpa.value & ~stolen_mask_) / kPageSize); }
  bool IsExecuteOnly(Gpa gpa) const { return (gpa.value & execute_only_mask_) != 0; }
  HwGfn HwGfnOf(Gfn gfn, MemoryKind alias, bool execute_only = false) const;
  Gfn GfnOf(HwGfn hw_gfn) const;
  // The raw address of `offset` bytes into gfn, through an alias.
  Gpa GpaOf(Gfn gfn, MemoryKind alias, uint64_t offset = 0) const;

  std::optional<int> shared_bit() const { return shared_bit_; }
  std::optional<int> execute_only_bit() const { return execute_only_bit_; }
  bool has_stolen_bits() const { return stolen_mask_ != 0; }
  int walk_bits() const { return walk_bits_; }
  int guest_maxphyaddr() const { return guest_maxphyaddr_; }
  // First gfn that no unaliased address can name.
  Gfn gfn_limit() const;

 private:
  GpaLayout(std::optional<int> shared_bit, int walk_bits, int guest_maxphyaddr,
            std::optional<int> execute_only_bit);

  std::optional<int> shared_bit_;
  std::optional<int> execute_only_bit_;
  int walk_bits_;
  int guest_maxphyaddr_;
  uint64_t shared_mask_;
  uint64_t execute_only_mask_;
  uint64_t stolen_mask_;
  uint64_t reserved_mask_;  // neither stolen nor within the guest's width and the walk
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_GPA_LAYOUT_H_
