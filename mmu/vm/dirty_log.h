// What faults see of the dirty log while it is on: how to log, and where to.
//
// Thread-safe. Published by an atomic pointer, found inside an EpochGuard; the holder of the Turn
// replaces it when memslots come and go, and bitmaps live on in the next one.
//
// No write is lost (F3). A fault marks the page BEFORE it makes the leaf writable; the harvester
// takes the mark BEFORE it takes W away:
//
//   fault                     harvest
//   mark                      take the mark
//   make writable             take W; flush; then report
//
// A fault may be between its two steps when the mark is taken, inside its guard or with the slot
// frozen; that the leaf is writable proves nothing, it may be so by another fault. So the harvester
// waits for an epoch between its own two steps, and for slots that are frozen.
#ifndef TWINROOT_MMU_VM_DIRTY_LOG_H_
#define TWINROOT_MMU_VM_DIRTY_LOG_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "mmu/tables/epoch.h"
#include "mmu/vm/dirty_bitmap.h"
#include "mmu/vm/dirty_ring.h"

namespace twinroot::mmu {

enum class DirtyLogMode : uint8_t {
  kWriteProtect,  // W is withheld until the first write
  kDirtyBit,      // the processor's D bits; a harvest reads all leaves
  kPml,           // D bits, and the processor's page-modification log names what to read
};
enum class DirtyClear : uint8_t {
  kAtHarvest,  // a harvest starts the next round
  kManual,     // only ClearDirty does, page by page, when the caller has copied
};

struct DirtyLogOptions {
  DirtyLogMode mode = DirtyLogMode::kWriteProtect;
  DirtyClear clear = DirtyClear::kAtHarvest;
  // Every page counts as dirty at first; pages are split and protected when they are first cleared.
  // Needs kManual.
  bool initially_all_set = false;
  // Large pages are split when logging starts (or at the first clear), not at the first write.
  bool eager_split = true;
  // Rings of this many entries, one for each vCPU; 0: only the bitmap. Needs kWriteProtect.
  uint32_t ring_entries = 0;
  uint32_t ring_vcpus = 0;
};

class DirtyLog {
 public:
  // kResourceExhausted: no memory for the bitmaps.
  static absl::StatusOr<std::unique_ptr<const DirtyLog>> Create(const DirtyLogOptions& options,
                                                                const std::vector<GfnRange>& slots);
  // The same log for other memslots; bitmaps of slots that stay, stay.
  absl::StatusOr<std::unique_ptr<const DirtyLog>> ForSlots(
      const std::vector<GfnRange>& slots) const;

  const DirtyLogOptions& options() const { return options_; }
  // Which Create it goes back to.
  uint64_t session() const { return session_; }
  bool withholds_write() const { return options_.mode == DirtyLogMode::kWriteProtect; }

  // By the vCPU `vcpu`, before its leaf becomes writable.
  void Mark(Gfn gfn, uint32_t vcpu) const {
    if (vcpu < rings_.size() && rings_[vcpu]->Push(gfn)) return;
    MarkPage(gfn);
  }
  void MarkPage(Gfn gfn) const;
  // By whoever else changes memory. Frames outside the memslots are ignored.
  void MarkRange(GfnRange range) const;

  bool SoftFull(uint32_t vcpu) const { return vcpu < rings_.size() && rings_[vcpu]->soft_full(); }
  DirtyRing* ring(uint32_t vcpu) const {
    return vcpu < rings_.size() ? rings_[vcpu].get() : nullptr;
  }
  const std::vector<std::shared_ptr<DirtyBitmap>>& bitmaps() const { return bitmaps_; }

 private:
  DirtyLog(const DirtyLogOptions& options, uint64_t session)
      : options_(options), session_(session) {}

  const DirtyLogOptions options_;
  const uint64_t session_;
  std::vector<std::shared_ptr<DirtyBitmap>> bitmaps_;  // ordered by frame
  std::vector<std::shared_ptr<DirtyRing>> rings_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_VM_DIRTY_LOG_H_
