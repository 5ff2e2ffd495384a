// A guest hypervisor's EPT as a policy of the guest walker: the tables that it made for its own
// guest, which no processor walks; ours shadow them. The rules are those of mmu/hw/ept_entry.h.
//
// A plain value, immutable.
#ifndef TWINROOT_MMU_SHADOW_EPT_PAGING_H_
#define TWINROOT_MMU_SHADOW_EPT_PAGING_H_

#include <cstdint>
#include <optional>

#include "mmu/hw/ept_capabilities.h"
#include "mmu/hw/ept_entry.h"
#include "mmu/hw/ept_pointer.h"
#include "mmu/hw/ept_violation.h"
#include "mmu/shadow/guest_memory.h"
#include "mmu/shadow/guest_rights.h"
#include "mmu/shadow/guest_walk.h"
#include "mmu/types/access.h"
#include "mmu/types/address.h"

namespace twinroot::mmu {

// An access of the nested guest, by the address that its hypervisor's EPT translates.
struct NestedAccess {
  Gpa gpa;
  Access needed;
  bool guest_page_walk = false;  // of the processor, to an entry of the nested guest's own tables
  LinearMode mode = LinearMode::kSupervisor;
  GuestPageRights page = {};  // only reported
};

class EptPaging {
 public:
  using Request = NestedAccess;
  using Entry = EptEntry;

  // What the guest hypervisor was told that its processor can do. `eptp` passed VM entry's checks.
  EptPaging(EptPointer eptp, const EptCapabilities& capabilities, int maxphyaddr)
      : eptp_(eptp), capabilities_(capabilities), maxphyaddr_(maxphyaddr) {}

  EptPointer eptp() const { return eptp_; }

  // The policy of the walker (guest_walker.cc).
  std::optional<GuestWalkOutcome> Start(GuestMemory&, Request& access, Gpa& table) const {
    if (access.gpa.value >= BytesPerEntry(Above(eptp_.root_level()))) return NotPresent(access);
    // With A/D flags such an access counts as a write (SDM, "EPT Violations").
    if (access.guest_page_walk && eptp_.accessed_dirty()) {
      access.needed = access.needed | Access::Write();
    }
    table = Gpa(eptp_.root().value);
    return std::nullopt;
  }
  Level top() const { return eptp_.root_level(); }
  Gpa SlotOf(Gpa table, const Request& access, Level level) const {
    return table + EptIndex(HwGfn(access.gpa.value >> kPageShift), level) * entry_bytes();
  }
  unsigned entry_bytes() const { return sizeof(uint64_t); }
  bool Present(Entry entry) const { return entry.Present(capabilities_.mode_based_execute); }
  bool Malformed(Entry entry, Level level) const {
    return IsEptMisconfiguration(entry, level, capabilities_, maxphyaddr_);
  }
  bool IsLeaf(Entry entry, Level level) const { return entry.IsLeaf(level); }
  Gpa AddressOf(Entry entry, Level) const { return Gpa(entry.address().value); }
  uint64_t BytesOf(Level level) const { return BytesPerEntry(level); }
  // Bit 2 alone decides of fetches: mode-based execute is not offered to guest hypervisors.
  GuestRights RightsOf(Entry entry) const {
    const Access access = entry.access();
    return (access.read() ? GuestRights::User() : GuestRights::None()) |
           (access.write() ? GuestRights::Write() : GuestRights::None()) |
           (access.fetch() ? GuestRights::Execute() : GuestRights::None());
  }
  std::optional<GuestWalkOutcome> Refuse(const Request& access, GuestRights rights, Entry) const {
    const Access allowed = (rights.user() ? Access::Read() : Access::None()) |
                           (rights.write() ? Access::Write() : Access::None()) |
                           (rights.execute() ? Access::Fetch() : Access::None());
    if (allowed.Includes(access.needed)) return std::nullopt;
    return Violation(access, allowed);
  }
  GuestWalkOutcome NotPresent(const Request& access) const {
    return Violation(access, Access::None());
  }
  GuestWalkOutcome Broken(const Request& access, Level level) const {
    return NestedEptMisconfiguration{access.gpa, level};
  }
  uint64_t FlagsOf(const Request& access, bool leaf) const {
    if (!eptp_.accessed_dirty()) return 0;
    return EptEntry::kAccessed | (leaf && access.needed.write() ? EptEntry::kDirty : 0);
  }
  bool DirtyIn(Entry leaf) const { return !eptp_.accessed_dirty() || leaf.dirty(); }

 private:
  GuestWalkOutcome Violation(const Request& access, Access allowed) const {
    const EptViolation qualification =
        access.guest_page_walk
            ? EptViolation::MakeGuestPageWalk(access.needed, eptp_.accessed_dirty(), allowed)
            : EptViolation::Make(access.needed, allowed);
    return NestedEptViolation{access.gpa,
                              capabilities_.advanced_exit_information
                                  ? qualification.WithAdvancedInformation(access.mode, access.page)
                                  : qualification};
  }

  EptPointer eptp_;
  EptCapabilities capabilities_;
  int maxphyaddr_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_SHADOW_EPT_PAGING_H_
