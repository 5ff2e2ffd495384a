// What a table is, besides its address: two tables are interchangeable only if their identities
// are equal in every bit (behaviour B1). Plain values.
#ifndef TWINROOT_MMU_TABLES_TABLE_ROLE_H_
#define TWINROOT_MMU_TABLES_TABLE_ROLE_H_

#include <cstdint>

#include "mmu/types/access.h"
#include "mmu/types/address.h"
#include "mmu/types/level.h"
#include "mmu/types/memory_kind.h"

namespace twinroot::mmu {

struct TableRole {
  Level level = Level::k4K;  // of its entries
  MemoryKind kind = MemoryKind::kPrivate;
  bool execute_only : 1 = false;  // everything below belongs to the execute-only alias
  bool direct : 1 = true;         // linear gfn -> entry; false: shadows a guest's table
  Access access = Access::All();  // rights of the path that leads here
  bool promoted : 1 = false;      // stands above the guest's top level
  bool pae_root : 1 = false;      // 4 entries in PDPTE format
  uint8_t quadrant = 0;           // which part of a 32-bit guest table, 0 to 3
  bool guest_mode : 1 = false;    // built for a nested guest
  // The guest's control bits that change what its entries mean; false in direct tables.
  bool cr0_wp : 1 = false;
  bool cr4_pae : 1 = false;
  bool cr4_pse : 1 = false;
  bool cr4_smep : 1 = false;
  bool cr4_smap : 1 = false;
  bool cr4_la57 : 1 = false;
  bool efer_nx : 1 = false;
  bool efer_lma : 1 = false;     // 62:52 of an entry are ignored, not reserved
  bool guest_flags : 1 = false;  // a nested EPT whose pointer enables accessed and dirty flags

  // All of it in one word: equal words are equal roles.
  constexpr uint32_t word() const {
    uint32_t w = 0;
    auto put = [&w, at = 0](uint32_t value, int bits) mutable {
      w |= value << at;
      at += bits;
    };
    put(static_cast<uint32_t>(level), 3);
    put(static_cast<uint32_t>(kind), 1);
    put(direct, 1);
    put(access.read(), 1);
    put(access.write(), 1);
    put(access.fetch(), 1);
    put(promoted, 1);
    put(pae_root, 1);
    put(quadrant, 2);
    put(guest_mode, 1);
    put(cr0_wp, 1);
    put(cr4_pae, 1);
    put(cr4_pse, 1);
    put(cr4_smep, 1);
    put(cr4_smap, 1);
    put(cr4_la57, 1);
    put(efer_nx, 1);
    put(execute_only, 1);
    put(efer_lma, 1);
    put(guest_flags, 1);
    return w;
  }
  friend constexpr bool operator==(const TableRole& a, const TableRole& b) {
    return a.word() == b.word();
  }
};
static_assert(sizeof(TableRole) == 8);  // every table has one

struct TableIdentity {
  Gfn gfn;  // first frame it maps; stolen bits are the role's business
  TableRole role;
  friend constexpr bool operator==(const TableIdentity&, const TableIdentity&) = default;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TABLES_TABLE_ROLE_H_
