// The roots of one vCPU: the one in use and the three before it, so that a guest that goes to and
// fro between address spaces finds each as it left it (C7). No root is special: each is a shadow
// page, kept while it stands here.
//
// Not thread-safe: the Turn's.
#ifndef TWINROOT_MMU_SHADOW_SHADOW_ROOTS_H_
#define TWINROOT_MMU_SHADOW_SHADOW_ROOTS_H_

#include <array>
#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "mmu/shadow/guest_shape.h"
#include "mmu/shadow/ia32_paging.h"
#include "mmu/shadow/shadow_tables.h"
#include "mmu/tables/table_pool.h"

namespace twinroot::mmu {

class ShadowRoots {
 public:
  static constexpr size_t kKept = 4;

  explicit ShadowRoots(ShadowTables& tables) : tables_(tables) {}

  // What the guest has loaded: its CR3 (or nested EPTP) without flags, and under PAE its PDPTEs.
  struct Request {
    GuestShape shape;
    Gpa top;
    Pdptes pdptes = {};
  };
  struct Loaded {
    ShadowPage* root;
    bool switched = false;  // it was kept: nothing has to be built
  };
  // Makes the root for the request the current one. Takes at most two tables.
  // kUnimplemented: the guest's tables are deeper than the shadow may be. kUnavailable: a PAE root
  // lies below 4 GiB, and the table pool does not. kResourceExhausted: no table, or the cap of
  // shadow pages.
  absl::StatusOr<Loaded> Load(const Turn& turn, const Request& request, PreloadedTables& preload);
  // Null before the first Load. It may have become obsolete.
  ShadowPage* current() const { return kept_[0] ? kept_[0]->root : nullptr; }
  // All of them; before the vCPU goes.
  void DropAll(const Turn& turn);

 private:
  struct Kept {
    ShadowPage* root;
    Gpa top;
    Pdptes pdptes;
  };
  // The part of a kept root that PDPTEs have made wrong goes (C7).
  void UpdatePdptes(const Turn& turn, Kept& kept, const Pdptes& pdptes, ShadowFlush& flush);

  ShadowTables& tables_;
  std::array<std::optional<Kept>, kKept> kept_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_SHADOW_SHADOW_ROOTS_H_
