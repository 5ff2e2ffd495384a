// Entries of shadow tables: what our own word says when it stands in for a guest's entry. Two
// formats: the processor's ordinary paging (also that of an AMD processor's nested tables), and
// EPT, which stands in for a guest hypervisor's EPT. Pure functions.
//
// Both formats keep present, PS, address and the software's own bits (soft_bits.h) in the same
// places, and a link that grants everything is the same word in both: P, R/W, U/S are where EPT has
// R, W, X; bits 10 and 11 are ignored by ordinary paging. So slots, states and links are shared
// with the direct engine; only leaves differ.
#ifndef TWINROOT_MMU_HW_SHADOW_ENTRY_H_
#define TWINROOT_MMU_HW_SHADOW_ENTRY_H_

#include <cstdint>

#include "mmu/hw/ept_entry.h"
#include "mmu/hw/guest_pte.h"
#include "mmu/hw/mem_type.h"
#include "mmu/hw/pae_pdpte.h"
#include "mmu/hw/soft_bits.h"
#include "mmu/types/access.h"
#include "mmu/types/address.h"
#include "mmu/types/level.h"

namespace twinroot::mmu {

enum class ShadowFormat : uint8_t { kPaging, kEpt };

// What a shadow leaf grants. `read`: under ordinary paging every leaf is readable.
struct ShadowGrant {
  bool read = true;
  bool write = false;
  bool user = true;  // ordinary paging: U/S
  bool execute = false;
  // Fetch is withheld from a large leaf by the NX-huge-page mitigation. Not under PAE, where bits
  // 62:52 are reserved.
  bool nx_huge_page = false;
  friend constexpr bool operator==(const ShadowGrant&, const ShadowGrant&) = default;
};

// `page` is aligned to the level.
constexpr EptEntry MakeShadowLeaf(ShadowFormat format, Hpa page, Level level,
                                  const ShadowGrant& grant) {
  const uint64_t soft = kMmuPresent | (grant.nx_huge_page ? kNxHugePage : 0);
  if (format == ShadowFormat::kEpt) {
    const Access access = (grant.read ? Access::Read() : Access::None()) |
                          (grant.write ? Access::Write() : Access::None()) |
                          (grant.execute ? Access::Fetch() : Access::None());
    return EptEntry(EptEntry::Leaf(page, level, access, MemType::kWriteBack).raw() | soft);
  }
  return EptEntry((page.value & GuestPte::kAddressMask) | soft | GuestPte::kPresent |
                  (grant.write ? GuestPte::kWrite : 0) | (grant.user ? GuestPte::kUser : 0) |
                  (grant.execute ? 0 : GuestPte::kNoExecute) |
                  (level == Level::k4K ? 0 : GuestPte::kPageSize));
}

constexpr ShadowGrant GrantOf(ShadowFormat format, EptEntry leaf) {
  ShadowGrant grant{.nx_huge_page = IsNxHugePage(leaf)};
  if (format == ShadowFormat::kEpt) {
    grant.read = grant.user = leaf.access().read();
    grant.write = leaf.access().write();
    grant.execute = leaf.access().fetch();
  } else {
    const GuestPte entry(leaf.raw());
    grant.write = entry.writable();
    grant.user = entry.user();
    grant.execute = !entry.no_execute();
  }
  return grant;
}

// The processor's own flags.
constexpr uint64_t ShadowFlagsMask(ShadowFormat format) {
  return format == ShadowFormat::kEpt ? EptEntry::kAccessed | EptEntry::kDirty
                                      : GuestPte::kAccessed | GuestPte::kDirty;
}

// A link at the top of a PAE root (C4): present, an address, nothing else that a processor reads.
constexpr EptEntry PaeRootLinkTo(Hpa table) {
  return EptEntry((table.value & PaePdpte::kAddressMask) | PaePdpte::kPresent | kMmuPresent);
}

static_assert((EptEntry::kWrite == GuestPte::kWrite) &&
              EptEntry::kPageSize == GuestPte::kPageSize &&
              EptEntry::kAddressMask == GuestPte::kAddressMask);
// A link of ours is present, writable and user to ordinary paging, with no reserved bit.
static_assert((LinkTo(Hpa(0x7000)).raw() & 7) == 7 &&
              GuestPteFormat({.maxphyaddr = 40})
                      .ReservedBits(GuestPte(LinkTo(Hpa(0x7000)).raw()), Level::k512G) == 0);
static_assert(!PaePdpte(PaeRootLinkTo(Hpa(0x7000)).raw()).Malformed(32));
static_assert(GuestPteFormat({.mode = PagingMode::k4Level, .maxphyaddr = 40})
                  .ReservedBits(GuestPte(kSoftBits), Level::k4K) == 0);
static_assert(MakeShadowLeaf(ShadowFormat::kPaging, Hpa(0x5000), Level::k4K, {.write = true})
                  .raw() == 0x8000'0000'0000'5807);
static_assert(MakeShadowLeaf(ShadowFormat::kEpt, Hpa(0x20'0000), Level::k2M, {.execute = true})
                  .raw() == 0x200CB5);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_HW_SHADOW_ENTRY_H_
