// What a walk through a guest's tables ends with. Plain values.
#ifndef TWINROOT_MMU_SHADOW_GUEST_WALK_H_
#define TWINROOT_MMU_SHADOW_GUEST_WALK_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <variant>

#include "mmu/hw/ept_violation.h"
#include "mmu/shadow/guest_rights.h"
#include "mmu/types/address.h"
#include "mmu/types/level.h"

namespace twinroot::mmu {

// One entry that the walk went through, with the flags that it set.
struct GuestStep {
  Gpa entry;
  uint64_t word = 0;
  Level level = Level::k4K;
  GuestRights rights;  // of all entries down to this one
};

struct GuestTranslation {
  Gpa gpa;                   // of the byte that was asked for
  Gpa page;                  // where the guest's page begins
  Level level = Level::k4K;  // the largest that fits into the guest's page: 2M in one of 4M
  GuestRights rights;
  // A write needs no further walk: the leaf's dirty flag is set, or the format has none.
  bool dirty = false;
  int depth = 0;
  std::array<GuestStep, 5> steps;  // the first `depth`; the leaf is the last. No PDPTE of PAE.

  const GuestStep& leaf() const { return steps[static_cast<size_t>(depth) - 1]; }
};
// #PF of the guest, with the error code that it gets.
struct GuestPageFault {
  uint64_t address = 0;
  uint32_t error_code = 0;
};
// Of a nested EPT: what the hypervisor that made it gets.
struct NestedEptViolation {
  Gpa gpa;
  EptViolation qualification;
};
struct NestedEptMisconfiguration {
  Gpa gpa;
  Level level = Level::k4K;
};
// A table of the guest lies where no memory is.
struct GuestTableMissing {
  Gpa entry;
};
using GuestWalkOutcome = std::variant<GuestTranslation, GuestPageFault, NestedEptViolation,
                                      NestedEptMisconfiguration, GuestTableMissing>;

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_SHADOW_GUEST_WALK_H_
