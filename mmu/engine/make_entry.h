// Which word a leaf of a direct root is. Pure: the same request gives the same word.
#ifndef TWINROOT_MMU_ENGINE_MAKE_ENTRY_H_
#define TWINROOT_MMU_ENGINE_MAKE_ENTRY_H_

#include "mmu/hw/ept_entry.h"
#include "mmu/hw/soft_bits.h"
#include "mmu/types/access.h"
#include "mmu/types/address.h"
#include "mmu/types/level.h"

namespace twinroot::mmu {

// What a leaf over some pages is to be.
struct LeafRequest {
  Access allowed = Access::All();  // what alias and attributes allow
  bool withhold_write = false;     // dirty logging: W comes back when the first write is logged
  bool withhold_fetch = false;     // NX-huge-page mitigation: X is for small pages
  MemType mem_type = MemType::kWriteBack;
  bool ignore_pat = false;  // the guest's PAT has no say
};

// `pfn` is aligned to `level`. A and D start clear: the first access sets them.
[[gnu::always_inline]] constexpr EptEntry MakeLeaf(Pfn pfn, Level level,
                                                   const LeafRequest& request) {
  Access granted = request.allowed;
  uint64_t soft = kMmuPresent;
  if (request.withhold_write && granted.write()) {
    granted = granted.Without(Access::Write());
    soft |= kMayWrite;
  }
  if (request.withhold_fetch && granted.fetch() && level != Level::k4K) {
    granted = granted.Without(Access::Fetch());
    soft |= kNxHugePage;
  }
  const EptEntry leaf = EptEntry::Leaf(HpaOf(pfn), level, granted, request.mem_type);
  return EptEntry(leaf.raw() | soft | (request.ignore_pat ? EptEntry::kIgnorePat : 0));
}

// The first of the 512 leaves that a leaf of `level` is split into: the same translation, and the
// rights of the role: what was withheld for the page's size comes back.
constexpr EptEntry MakeSplitLeaf(EptEntry leaf, Level level) {
  uint64_t raw = leaf.raw();
  if (Below(level) == Level::k4K) {
    raw &= ~EptEntry::kPageSize;
    if (raw & kNxHugePage) {
      // A leaf whose rights are all taken away for a while stays so: X comes back with the rest.
      raw = (raw & ~kNxHugePage) |
            (HasSavedAccess(leaf) ? kSavedFetch : EptEntry::kExecute | EptEntry::kExecuteUser);
    }
  }
  return EptEntry(raw);
}

static_assert(MakeLeaf(Pfn(5), Level::k4K, {}).raw() == (0x5437 | kMmuPresent));
static_assert(MakeSplitLeaf(MakeLeaf(Pfn(512), Level::k2M, {.withhold_fetch = true}), Level::k2M) ==
              MakeLeaf(Pfn(512), Level::k4K, {}));
static_assert(MakeSplitLeaf(WithSavedAccess(WithoutWrite(MakeLeaf(Pfn(512), Level::k2M,
                                                                  {.withhold_fetch = true}))),
                            Level::k2M) ==
              WithSavedAccess(WithoutWrite(MakeLeaf(Pfn(512), Level::k4K, {}))));

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_ENGINE_MAKE_ENTRY_H_
