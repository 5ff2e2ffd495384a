// One shadow table: a page of entries that stands in for (a part of) a guest's table, or for a
// stretch of memory (direct), or above the guest's top level (promoted). Roots are such pages too.
//
// Not thread-safe: the Turn's. What it is never changes while it is reachable: (gfn, role) is its
// whole identity, and pages are reused only for exactly the same (B1).
#ifndef TWINROOT_MMU_SHADOW_SHADOW_PAGE_H_
#define TWINROOT_MMU_SHADOW_SHADOW_PAGE_H_

#include <cstdint>
#include <list>
#include <memory>
#include <string>

#include "mmu/shadow/guest_rights.h"
#include "mmu/shadow/shadowed_translation.h"
#include "mmu/shadow/slot_list.h"
#include "mmu/tables/table.h"

namespace twinroot::mmu {

// A role keeps rights as Access does: "user" (of an EPT: readable) where that has read.
constexpr Access RoleAccess(GuestRights rights) {
  return (rights.user() ? Access::Read() : Access::None()) |
         (rights.write() ? Access::Write() : Access::None()) |
         (rights.execute() ? Access::Fetch() : Access::None());
}
constexpr GuestRights RightsOf(const TableRole& role) {
  return (role.access.read() ? GuestRights::User() : GuestRights::None()) |
         (role.access.write() ? GuestRights::Write() : GuestRights::None()) |
         (role.access.fetch() ? GuestRights::Execute() : GuestRights::None());
}

// What a page without an array was asked to remember, and could not (B4): both are told apart.
struct TranslationMismatch {
  bool rights = false;
  bool gfn = false;
  constexpr bool any() const { return rights || gfn; }
};

class ShadowPage {
 public:
  // `gfn`: of the guest's table that it stands in for; of a direct page the first frame it maps; of
  // a promoted one the guest's top table.
  ShadowPage(Table& table, const TableIdentity& identity);

  const TableIdentity& identity() const { return table.identity; }
  const TableRole& role() const { return table.identity.role; }
  Gfn gfn() const { return table.identity.gfn; }
  Level level() const { return table.level(); }
  // It stands in for a table that the guest writes.
  bool indirect() const { return !role().direct && !role().promoted && !role().pae_root; }
  // Slots that may be present: the others stay empty.
  unsigned slots() const { return role().pae_root ? 4 : role().promoted ? 1 : kEntriesPerTable; }
  EntrySlot& slot(unsigned index) const { return table.slots[index]; }
  unsigned IndexOf(const EntrySlot& slot) const {
    return static_cast<unsigned>(&slot - table.slots);
  }

  // What the guest says of an entry (B4): from the array, else from the role.
  Gfn GfnAt(unsigned index) const;
  GuestRights RightsAt(unsigned index) const;
  // Remembers it. Without an array nothing changes, and what differs from the role is told.
  TranslationMismatch SetTranslation(unsigned index, Gfn gfn, GuestRights rights);
  // For a report: kind of page, its gfn, what was expected, what came.
  std::string Describe(TranslationMismatch mismatch, unsigned index, Gfn gfn,
                       GuestRights rights) const;

  Table& table;
  SlotList parents;  // that link it
  uint64_t generation = 0;
  std::list<ShadowPage>::iterator self;  // in the list of all
  unsigned roots = 0;                    // how often it is kept as a root
  bool shared = false;                   // found by its identity
  bool unsync = false;    // the guest may write its table: entries may be out of date
  bool obsolete = false;  // never to be found again; goes when nobody keeps it
  uint8_t floods = 0;     // writes to the guest's table since the shadow was last used

 private:
  std::unique_ptr<ShadowedTranslation[]> translations_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_SHADOW_SHADOW_PAGE_H_
