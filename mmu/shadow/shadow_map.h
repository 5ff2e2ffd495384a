// A shadow fault: the guest's walk is done and grants the access; now our tables learn it. And what
// the guest does to its own tables: writes that nobody could let through, and tables that it may
// write until it says so (unsync), brought into step again.
//
// All under the Turn. Flushes are made before a caller may rely on them: what a function has taken
// away is flushed when it returns.
#ifndef TWINROOT_MMU_SHADOW_SHADOW_MAP_H_
#define TWINROOT_MMU_SHADOW_SHADOW_MAP_H_

#include <cstdint>

#include "mmu/shadow/guest_memory.h"
#include "mmu/shadow/guest_shape.h"
#include "mmu/shadow/guest_walk.h"
#include "mmu/shadow/ia32_paging.h"
#include "mmu/shadow/shadow_backing.h"
#include "mmu/shadow/shadow_tables.h"
#include "mmu/tables/table_pool.h"
#include "mmu/types/access.h"

namespace twinroot::mmu {

enum class ShadowOutcome : uint8_t {
  kMapped,
  kSpurious,    // it was mapped already
  kRetry,       // the guest has changed what was walked: walk again
  kReloadRoot,  // the root is obsolete
  // A write that no leaf may let through, for the guest writes a table of its own, or CR0.WP is 0
  // and the page read-only: make it by hand, then tell GuestWrote.
  kEmulate,
  kNoMemory,    // nothing behind the frame that allows the access
  kNeedTables,  // preload kDeepestShadow tables
  kNoRoom,      // the cap of shadow pages, and all are in use
};

inline constexpr size_t kDeepestShadow = 5;

class ShadowMapper {
 public:
  // Not owned. `features`: of the guest's processor.
  ShadowMapper(ShadowTables& tables, GuestMemory& memory, ShadowBacking& backing,
               const GuestCpuFeatures& features)
      : tables_(tables), memory_(memory), backing_(backing), features_(features) {}

  // `walk` grants `needed` for `address` in the guest's eyes. Without paging it tells gpa, all
  // rights, dirty, and the largest level, and has no steps.
  ShadowOutcome Map(const Turn& turn, ShadowPage& root, const GuestShape& shape,
                    const GuestTranslation& walk, uint64_t address, Access needed,
                    PreloadedTables& preload);

  // The guest's bytes at [gpa, gpa + bytes), inside one page, were changed by hand.
  void GuestWrote(const Turn& turn, Gpa gpa, uint64_t bytes);

  // INVLPG, MOV to CR3, and the like: what the guest wrote into its leaf tables counts from here.
  void SyncAll(const Turn& turn);
  void SyncPage(const Turn& turn, ShadowPage& page);

 private:
  ShadowGrant GrantFor(const ShadowBacking::Page& page, Level level, GuestRights rights,
                       bool writable) const;
  bool StillThere(const GuestTranslation& walk, Level level, int entry_bytes);
  void SyncEntry(const Turn& turn, const Ia32Paging& paging, ShadowPage& page, unsigned index,
                 ShadowFlush& flush);
  static unsigned IndexOf(const ShadowPage& page, uint64_t address);

  ShadowTables& tables_;
  GuestMemory& memory_;
  ShadowBacking& backing_;
  const GuestCpuFeatures features_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_SHADOW_SHADOW_MAP_H_
