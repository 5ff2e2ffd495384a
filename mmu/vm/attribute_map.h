// What every frame is (D11): private or shared, and which accesses are denied. Frames that were
// never set are shared, and nothing is denied.
//
// A radix tree whose nodes are uniform(attributes) or split; attribute_node.h draws it. "Uniform at
// a level" is "a huge page may stand here" (D3), so mixed-range bits are derived, never kept. A
// range of any size touches O(depth) nodes.
//
// Thread safety: one writer, by its Turn; readers beside it take no lock. Of a frame that is being
// set a reader sees the old or the new attributes, never anything else. What the writer takes out
// of the tree is freed after a grace period.
//
// A change of many ranges, which must be disjoint, is made in this order:
//   Prepare each      may fail for want of memory; no answer changes but UniformAt's
//   Set each          cannot fail and frees nothing; may be left out
//   Collapse each     always, also after a Prepare that failed, and only when every Set is done:
//                     it takes away splits that say nothing, which another range may need till then
#ifndef TWINROOT_MMU_VM_ATTRIBUTE_MAP_H_
#define TWINROOT_MMU_VM_ATTRIBUTE_MAP_H_

#include <atomic>
#include <cstddef>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "mmu/tables/epoch.h"
#include "mmu/types/gfn_range.h"
#include "mmu/types/level.h"
#include "mmu/types/memory_attributes.h"
#include "mmu/vm/attribute_node.h"

namespace twinroot::mmu {

class AttributeMap {
 public:
  // `limit`: the first gfn that is never asked for, at most 2^45. The depth of the tree at a frame
  // follows from the frame alone, so low frames are found in few steps whatever the limit.
  explicit AttributeMap(Gfn limit);
  // No reader is left in the map.
  ~AttributeMap();
  AttributeMap(const AttributeMap&) = delete;
  AttributeMap& operator=(const AttributeMap&) = delete;

  MemoryAttributes Get(const MmuRead&, Gfn gfn) const {
    // Most memory is uniform: then the trunk says it.
    const uintptr_t word = trunk_[AttributeTierOf(gfn)].load(std::memory_order_acquire);
    return MemoryAttributes::FromWord(IsUniform(word) ? UniformValue(word) : ValueAt(gfn));
  }
  // All frames of the leaf of `level` around gfn are the same, in kind and denials. May say "no"
  // for equal frames between a Prepare and its Collapse.
  bool UniformAt(const MmuRead&, Gfn gfn, Level level) const;
  // Calls `visit` for each maximal run of the range, in order. Beside a Set, each frame is old or
  // new for itself, and runs may be cut shorter.
  void ForEachRun(const MmuRead&, GfnRange range,
                  absl::FunctionRef<void(GfnRange, MemoryAttributes)> visit) const;

  // Splits nodes along the ends of the range, so that Set(range, attributes) needs no memory.
  // kResourceExhausted: no memory; Collapse takes back what was split.
  absl::Status Prepare(const Turn&, GfnRange range, MemoryAttributes attributes);
  // After Prepare of the same. Never waits.
  void Set(const Turn&, GfnRange range, MemoryAttributes attributes);
  // Takes away the splits along the ends of the range that are not needed: after all Sets of a
  // change, or instead of them. Frees what was taken out of the tree once that is more than
  // kRetiredBytes; then it waits for readers, so call it when nobody waits for the change.
  void Collapse(const Turn&, GfnRange range);

  // Of all splits in the tree; those that wait to be freed are not counted.
  size_t bytes() const { return bytes_.load(std::memory_order_relaxed); }
  // Of those that wait. After a Collapse at most kRetiredBytes.
  size_t retired_bytes(const Turn&) const { return retired_bytes_; }

  // What may wait to be freed.
  static constexpr size_t kRetiredBytes = size_t{256} * 1024;

 private:
  class Writer;

  uint8_t ValueAt(Gfn gfn) const;
  void FreeRetired();

  const Gfn limit_;
  std::atomic<size_t> bytes_{0};
  // The writer's. Linked through the nodes: taking one out of the tree needs no memory.
  AttributeNode* retired_ = nullptr;
  size_t retired_bytes_ = 0;
  AttributeWord trunk_[kAttributeTiers];
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_ATTRIBUTE_MAP_H_
