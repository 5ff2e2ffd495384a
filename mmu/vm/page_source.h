// Where guest pages come from. Declared by the engine, implemented by daemon/memory (memfds).
#ifndef TWINROOT_MMU_VM_PAGE_SOURCE_H_
#define TWINROOT_MMU_VM_PAGE_SOURCE_H_

#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu/types/address.h"
#include "mmu/types/gfn_range.h"
#include "mmu/types/level.h"
#include "mmu/types/memory_kind.h"

namespace twinroot::mmu {

// Thread-safe. Every range lies in one memslot; the engine has checked it.
class PageSource {
 public:
  struct Page {
    Pfn pfn;          // the frame of `gfn` itself
    Level max_level;  // largest leaf that this page's surroundings allow
  };

  virtual ~PageSource() = default;

  // The largest leaf around `gfn`, if its page is there already and Resolve would do nothing else.
  // Never blocks: called inside an EpochGuard. The default knows nothing.
  virtual std::optional<Level> Ready(Gfn, MemoryKind) { return std::nullopt; }

  // What Resolve would say of the largest leaf around a page, whether that is there or not. Never
  // blocks, allocates nothing: asked with the turn held, or inside an EpochGuard.
  virtual Level LargestLeaf(Gfn gfn, MemoryKind kind) = 0;

  // The page behind `gfn`; allocates it (zeroed) if there is none. May block. No lock is held.
  // `wanted`: the largest leaf that may stand there now as far as the engine knows; a source that
  // needs all pages of a leaf brings them, if it can, and otherwise names a smaller one.
  // kResourceExhausted: no memory. kFailedPrecondition: the slot has no backing of this kind.
  // kUnavailable: not here yet (F13); GuestAddressSpace::PageReady will be told when it is.
  virtual absl::StatusOr<Page> Resolve(Gfn gfn, MemoryKind kind, Level wanted) = 0;

  // Allocates every page of the range, so that Copy into it cannot fail.
  virtual absl::Status Reserve(GfnRange range, MemoryKind kind) = 0;

  // Copies the bytes of the range between its two backings; the target was reserved. Pages that
  // the source never had read zero, and stay unallocated if they can.
  virtual void Copy(GfnRange range, MemoryKind from, MemoryKind to) = 0;

  // A memslot moves: the backings of `from` are those of as many frames from `to` on, which may
  // overlap. Called between the first and the last step of the change: faults on either place
  // retry, whatever Resolve says to them meanwhile. An error refuses the move; nothing changed.
  virtual absl::Status Move(GfnRange, Gfn) {
    return absl::UnimplementedError("this VM's memory cannot be moved");
  }

  // Frees the range: it reads zero when next used. Cannot fail.
  virtual void Discard(GfnRange range, MemoryKind kind) = 0;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_PAGE_SOURCE_H_
