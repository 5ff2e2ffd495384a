// How a guest's tables lie in shadow tables that may have more levels, and smaller ones: who stands
// in for what. Pure functions of a guest's registers; plain values.
//
//   guest                    shadow of 5 levels, from the root down
//   5 levels                 5 4 3 2 1
//   4 levels                 promoted 4 3 2 1
//   PAE                      promoted promoted four 2 1        four: one entry for each PDPTE
//   32-bit                   promoted promoted four 2 1        four: one for each quarter of the
//                                                              directory; 1: half of a guest table
//   none                     direct at every level
//
// A shadow of 4 levels begins one further down, one of PAE at "four".
#ifndef TWINROOT_MMU_SHADOW_GUEST_SHAPE_H_
#define TWINROOT_MMU_SHADOW_GUEST_SHAPE_H_

#include <cstdint>
#include <optional>

#include "mmu/shadow/ept_paging.h"
#include "mmu/shadow/guest_walk.h"
#include "mmu/shadow/ia32_paging.h"
#include "mmu/shadow/shadow_page.h"
#include "mmu/tables/table_role.h"
#include "mmu/types/level.h"

namespace twinroot::mmu {

struct GuestShape {
  // Of the guest's top table in the shadow; PAE and 32-bit: where the four entries stand. Nullopt:
  // the guest has no paging.
  std::optional<Level> top;
  bool four = false;
  bool quadrants = false;      // 32-bit
  bool own_registers = false;  // the four are PDPTE registers, not memory: a root of one vCPU's
  TableRole base;              // what all indirect roles have in common

  // The root for a shadow that begins at `root_level`, which is not below the guest's top. `gfn`:
  // of the guest's top table; 0 without paging.
  TableIdentity Root(Gfn gfn, Level root_level) const {
    if (!top) return {Gfn(0), Direct(root_level, GuestRights::All(), root_level == Level::k1G)};
    return {gfn, AboveOrAtTop(root_level)};
  }
  // What an entry of `page` has to link on the way of `walk` to `address`; without paging the walk
  // tells the frame alone.
  TableIdentity Child(const TableIdentity& page, const GuestTranslation& walk, uint64_t address,
                      GuestRights rights) const;

  // Registers that change what the guest's own entries mean are in the role. CR0.WP, SMEP, SMAP and
  // keys are not: the processor applies them to the shadow as it would to the guest's tables.
  static GuestShape Of(const Ia32Paging& paging, bool guest_mode = false);
  static GuestShape Of(const EptPaging& paging);
  static GuestShape Unpaged() { return {}; }

 private:
  TableRole Direct(Level level, GuestRights rights, bool pae_root = false) const {
    TableRole role;
    role.level = level;
    role.access = RoleAccess(rights);
    role.pae_root = pae_root;
    role.guest_mode = base.guest_mode;
    return role;
  }
  TableRole AboveOrAtTop(Level level) const {
    TableRole role = base;
    role.level = level;
    role.promoted = level > *top;
    role.pae_root = level == *top && four;
    return role;
  }
};

inline TableIdentity GuestShape::Child(const TableIdentity& page, const GuestTranslation& walk,
                                       uint64_t address, GuestRights rights) const {
  const Level level = Below(page.role.level);
  const uint64_t frames = FramesPerEntry(page.role.level);
  const Gfn gfn(walk.gpa.value >> kPageShift);
  if (page.role.direct) return {gfn - gfn.value % frames, Direct(level, RightsOf(page.role))};
  if (page.role.promoted) return {page.gfn, AboveOrAtTop(level)};
  TableIdentity child{Gfn(0), base};
  child.role.level = level;
  if (page.role.pae_root) {
    child.gfn = Gfn(walk.steps[0].entry.value >> kPageShift);
    if (quadrants) child.role.quadrant = address >> 30 & 3;
    return child;
  }
  const GuestStep* step = &walk.steps[0];
  while (step->level != page.role.level) ++step;
  // The guest's page is larger than what may stand here.
  if (step == &walk.leaf()) return {gfn - gfn.value % frames, Direct(level, rights)};
  child.gfn = Gfn(step[1].entry.value >> kPageShift);
  child.role.access = RoleAccess(step->rights);
  if (quadrants) child.role.quadrant = address >> 21 & 1;
  return child;
}

inline GuestShape GuestShape::Of(const Ia32Paging& paging, bool guest_mode) {
  GuestShape shape;
  const ControlRegisters& registers = paging.registers();
  shape.base.direct = false;
  shape.base.guest_mode = guest_mode;
  shape.base.cr4_pse = registers.cr4 & ControlRegisters::kCr4Pse;
  shape.base.cr4_pae = registers.cr4 & ControlRegisters::kCr4Pae;
  shape.base.cr4_la57 = registers.mode() == PagingMode::k5Level;
  shape.base.efer_nx = registers.nxe();
  shape.base.efer_lma = paging.format().has_keys();
  shape.quadrants = paging.format().is_32bit();
  shape.four = !paging.format().has_keys();
  shape.own_registers = registers.mode() == PagingMode::kPae;
  shape.top = shape.four ? Level::k1G : paging.top();
  return shape;
}

inline GuestShape GuestShape::Of(const EptPaging& paging) {
  GuestShape shape;
  shape.base.direct = false;
  shape.base.guest_mode = true;
  shape.base.cr4_pae = true;  // entries of 8 bytes
  shape.base.guest_flags = paging.eptp().accessed_dirty();
  shape.top = paging.top();
  return shape;
}

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_SHADOW_GUEST_SHAPE_H_
