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
  EptEntry leaf =
      WithMmuPresent(EptEntry::Leaf(HpaOf(pfn), level, request.allowed, request.mem_type))
          .WithIgnorePat(request.ignore_pat);
  if (request.withhold_write) leaf = WithoutWrite(leaf);
  if (request.withhold_fetch && level != Level::k4K) leaf = WithoutHugeFetch(leaf);
  return leaf;
}

// The first of the 512 leaves that a leaf of `level` is split into: the same translation, and the
// rights of the role: what was withheld for the page's size comes back.
constexpr EptEntry MakeSplitLeaf(EptEntry leaf, Level level) {
  return Below(level) == Level::k4K ? WithHugeFetch(leaf).WithPageSize(false) : leaf;
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
