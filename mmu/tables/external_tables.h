// Tables that somebody else owns and that must follow a root of ours: KVM's, behind a projection
// into host address space, or a TDX module's. Declared here, implemented in daemon/.
//
// The engine freezes its own slot, calls, and then publishes the slot or puts it back, so that each
// change reaches the other side exactly once.
#ifndef TWINROOT_MMU_TABLES_EXTERNAL_TABLES_H_
#define TWINROOT_MMU_TABLES_EXTERNAL_TABLES_H_

#include "absl/status/status.h"
#include "mmu/types/access.h"
#include "mmu/types/address.h"
#include "mmu/types/gfn_range.h"
#include "mmu/types/level.h"

namespace twinroot::mmu {

// Thread-safe; one object for each root. Called with a slot frozen or in the VM's turn: must not
// call back into the engine and must not wait for a vCPU.
class ExternalTables {
 public:
  virtual ~ExternalTables() = default;

  // The largest leaf that Set takes.
  virtual Level MaxLevel() const = 0;

  // Makes one leaf usable by vCPUs: `gfn` is aligned to `level`, its frames begin at `pfn`. An
  // error (no memory) means that nothing changed. Setting a leaf that is already there is no error:
  // the engine does so when a vCPU faults on a leaf that the owner has dropped by itself (reclaim),
  // and to give a right back.
  virtual absl::Status Set(Gfn gfn, Level level, Access access, Pfn pfn) = 0;

  // The leaf at `gfn` of `level` becomes 512 leaves of the level below: the same translations, no
  // moment without them. An error: nothing changed. kUnimplemented: this owner cannot; the engine
  // then keeps the large leaf or takes it away, as the caller needs.
  virtual absl::Status Split(Gfn, Level) {
    return absl::UnimplementedError("this external table does not split leaves");
  }
  // Split is implemented: asked where nothing may change yet.
  virtual bool CanSplit() const { return false; }
  // The other way round; all 512 are there and lie side by side. A Set of one of them may be under
  // way: it finds its page mapped, and changes nothing.
  virtual absl::Status Merge(Gfn, Level) {
    return absl::UnimplementedError("this external table does not merge leaves");
  }
  // Takes W away from leaves of the range, for dirty logging. When it returns OK no vCPU can write
  // there until Set gives the right back.
  virtual absl::Status WithholdWrite(GfnRange) {
    return absl::UnimplementedError("this external table cannot withhold writes");
  }
  virtual bool CanWithholdWrite() const { return false; }
  // The access that Set names is what vCPUs get, and no more: denials (D11) need it.
  virtual bool CanRestrict() const { return false; }

  // The memslot there begins at `to` from now on; no leaf of it is set, nor can be meanwhile.
  virtual void MoveSlot(GfnRange, Gfn) {}

  // Takes a range of leaves away. When it returns OK, no vCPU can use them and no access is still
  // under way. Removing what is not there is no error. After an error the engine tries once more,
  // then marks the VM bugged.
  virtual absl::Status Remove(GfnRange range) = 0;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TABLES_EXTERNAL_TABLES_H_
