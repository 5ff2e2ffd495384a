// Private or shared, for every frame: a radix tree whose nodes are uniform(kind) or split.
//
//   root word -> 512 words -> ... -> 512 words of 2 MiB -> bitmap of 512 frames
//   A word is a kind (everything below is of that kind) or a pointer to its split.
//
// "Uniform at a level" is "a huge page may stand here" (D3), so mixed-range bits are derived, never
// kept. A range of any size touches O(levels) nodes; equal children collapse upwards at once.
// Read under the MMU lock. Prepare goes by the caller's turn (one writer), readers may run beside
// it; Set and Collapse ask for Exclusive. Frames that were never set are shared.
#ifndef TWINROOT_MMU_VM_ATTRIBUTE_MAP_H_
#define TWINROOT_MMU_VM_ATTRIBUTE_MAP_H_

#include <atomic>
#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "mmu/tables/epoch.h"
#include "mmu/types/gfn_range.h"
#include "mmu/types/level.h"
#include "mmu/types/memory_attributes.h"
#include "mmu/types/memory_kind.h"

namespace twinroot::mmu {

class AttributeMap {
 public:
  explicit AttributeMap(Gfn limit);
  ~AttributeMap();
  AttributeMap(const AttributeMap&) = delete;
  AttributeMap& operator=(const AttributeMap&) = delete;

  MemoryAttributes Get(const MmuRead&, Gfn gfn) const;
  // All frames of the leaf of `level` around gfn are of one kind.
  bool UniformAt(const MmuRead&, Gfn gfn, Level level) const;
  // Calls `visit` for each maximal run of the range, in order.
  void ForEachRun(const MmuRead&, GfnRange range,
                  const std::function<void(GfnRange, MemoryAttributes)>& visit) const;

  // Splits nodes along the ends of the range, so that Set needs no memory. Says the same as before
  // to every reader but UniformAt, which may say "no" until Set or Collapse. kResourceExhausted:
  // no memory; Collapse takes back what was split.
  absl::Status Prepare(const Turn&, GfnRange range, MemoryAttributes attributes);
  // After Prepare of the same range.
  void Set(const Turn&, GfnRange range, MemoryAttributes attributes);
  // Undoes a Prepare that no Set will follow.
  void Collapse(const Turn&, GfnRange range);

  // Bytes of all splits.
  size_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uintptr_t> root_;
  std::atomic<size_t> bytes_{0};
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_ATTRIBUTE_MAP_H_
