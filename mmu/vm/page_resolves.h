// Which pages faults are asking the page source for right now, so that whoever removes memory can
// wait until nobody asks for it any more.
//
// Thread-safe. A thread says what it asks for on a line of its own; those beyond kLanes, and all if
// there is no memory for a line, are only counted together. One page for each thread at a time.
#ifndef TWINROOT_MMU_VM_PAGE_RESOLVES_H_
#define TWINROOT_MMU_VM_PAGE_RESOLVES_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "mmu/tables/epoch.h"
#include "mmu/types/gfn_range.h"

namespace twinroot::mmu {

class PageResolves {
 public:
  PageResolves() = default;
  ~PageResolves();
  PageResolves(const PageResolves&) = delete;
  PageResolves& operator=(const PageResolves&) = delete;

  // One question to the page source, from inside the guard in which its memslot was found until the
  // answer is there. Ends on the thread that made it.
  class Resolve {
   public:
    Resolve(const EpochGuard&, PageResolves& all, Gfn gfn);
    ~Resolve();
    Resolve(const Resolve&) = delete;
    Resolve& operator=(const Resolve&) = delete;

   private:
    std::atomic<uint64_t>& common_;
    std::atomic<uint64_t>* const lane_;  // null: only counted
  };

  // Returns when every question about a frame of the range has its answer, but for those that were
  // asked after the memslot was gone for them. Not inside a guard, not with the turn (the page
  // source may want it), not from the page source.
  void WaitFor(GfnRange range) const;

 private:
  static constexpr size_t kLanes = 128;
  static constexpr uint64_t kNothing = 0;  // else the gfn, plus one
  struct alignas(64) Lane {
    std::atomic<uint64_t> word{kNothing};
  };

  std::atomic<uint64_t>* Mine();

  std::array<std::atomic<Lane*>, kLanes> lanes_{};
  alignas(64) std::atomic<uint64_t> common_{0};
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_PAGE_RESOLVES_H_
