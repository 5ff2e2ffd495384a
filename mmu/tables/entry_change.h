// The only place that changes slots, and that keeps the books about them: tables in use, leaves by
// kind and level.
//
// Faults and changes meet here without a lock. 1. A leaf is made in three steps: freeze the slot by
// CAS, look whether a change has begun, publish or restore; InvalidationSeq has the argument. 2. A
// frozen slot belongs to the thread that froze it, and pins its table: whoever takes tables away
// waits for it. 3. Rights of a leaf that stands change by one CAS against the word that was read,
// as A and D bits do. 4. Only the holder of the Turn takes anything out.
#ifndef TWINROOT_MMU_TABLES_ENTRY_CHANGE_H_
#define TWINROOT_MMU_TABLES_ENTRY_CHANGE_H_

#include <cstdint>
#include <optional>

#include "mmu/tables/epoch.h"
#include "mmu/tables/root.h"
#include "mmu/tables/vm_counts.h"

namespace twinroot::mmu {

enum class ChangeResult : uint8_t { kDone, kRaced };

class EntryChange {
 public:
  explicit EntryChange(VmCounts& counts) : counts_(counts) {}

  // A root has no slot that points to it; this only keeps the books.
  void AdoptRoot(Table& root, const TableIdentity& identity);
  void DropRoot(Table& root);

  // `seen` (empty or an MMIO mark) -> a link to `child`, which is empty and named here. `gfn` is
  // any frame below it.
  ChangeResult Link(const MmuRead&, const Root& root, const Table& parent, EntrySlot& slot,
                    EptEntry seen, Table& child, Gfn gfn);

  // `seen` -> frozen; then exactly one of Publish and Restore by the same thread, which needs no
  // guard any more.
  ChangeResult Freeze(const MmuRead&, EntrySlot& slot, EptEntry seen) {
    return slot.CompareExchange(seen, kFrozenEntry) ? ChangeResult::kDone : ChangeResult::kRaced;
  }
  // `before`: what stood there when it was frozen.
  void Publish(const Root& root, EntrySlot& slot, Level level, EptEntry before, EptEntry leaf) {
    slot.Store(leaf);
    if (StateOf(before, level) != SlotState::kLeaf) counts_.Add(LeafCount(root.kind, level));
  }
  void Restore(EntrySlot& slot, EptEntry before) { slot.Store(before); }
  // The third way out of frozen: an MMIO mark, or empty instead of a stale one.
  void PublishMark(EntrySlot& slot, EptEntry mark);

  // A leaf gets other rights or soft bits; `seen` and `leaf` map the same page.
  ChangeResult ChangeRights(const MmuRead&, EntrySlot& slot, EptEntry seen, EptEntry leaf);

  // A leaf -> a link to 512 leaves of the level below with the same translations. `first_child` is
  // the first of them; each next one maps the next page. kRaced: the slot is no longer `seen`.
  ChangeResult Split(const MmuRead&, const Root& root, const Table& parent, EntrySlot& slot,
                     EptEntry seen, Table& child, Gfn gfn, EptEntry first_child);

  // The same in two steps: the slot was frozen while an external table was told.
  void PublishSplit(const Root& root, const Table& parent, EntrySlot& slot, Table& child, Gfn gfn,
                    EptEntry first_child);

  // The slot once nobody is in the middle of a change of it.
  static EptEntry Settle(const Turn&, const EntrySlot& slot);
  // Leaf -> empty; returns the leaf as it last stood, A and D bits included. Whoever freezes it
  // meanwhile is waited for. Nullopt: it is no leaf any more, a fault has split it.
  std::optional<EptEntry> ClearLeaf(const Turn& turn, const Root& root, EntrySlot& slot,
                                    Level level) {
    EptEntry last = slot.LoadOrdered();
    if (last == kEmptyEntry) return std::nullopt;
    if (StateOf(last, level) == SlotState::kLeaf && slot.CompareExchange(last, kEmptyEntry))
        [[likely]] {
      counts_.Add(LeafCount(root.kind, level), ~uint64_t{0});
      return last;
    }
    return ClearBusyLeaf(turn, root, slot, level);
  }
  // An MMIO mark -> empty.
  void ClearMark(const Turn&, EntrySlot& slot);
  // The link, with all that is below it, -> empty. Takes nothing from the books.
  void Detach(const Turn&, EntrySlot& slot);
  // A detached table, or one that Seal froze, leaves the books together with its leaves.
  void Forget(const Turn&, const Root& root, Level leaves_at, uint64_t leaves);
  // The two halves of it, for a detached table that may hold leaves of several aliases.
  void ForgetTable(const Turn&);
  void ForgetLeaves(const Turn&, MemoryKind kind, Level leaves_at, uint64_t leaves);

  // Freezes every slot of a table for good, if all are empty. False: they are not; nothing changed.
  // The look begins at `hint`, where a full slot is most likely.
  bool Seal(const Turn&, EntrySlot* slots, uint64_t hint = 0);
  // Link -> leaf; the table below it stays as it is, out of reach for new walks.
  void Cover(const Turn&, const Root& root, EntrySlot& slot, Level level, EptEntry leaf);

  // Takes W out of a leaf, which remembers that it may have it back. False: it had none; also if
  // the slot holds no leaf.
  bool TakeWrite(const Turn& turn, EntrySlot& slot, Level level) {
    EptEntry leaf = slot.LoadOrdered();
    if (leaf != kFrozenEntry) [[likely]] {
      if (StateOf(leaf, level) != SlotState::kLeaf || !leaf.access().write()) return false;
      if (slot.CompareExchange(leaf, WithoutWrite(leaf))) [[likely]]
        return true;
    }
    return TakeWriteFromBusy(turn, slot, level);
  }
  // Takes every right that is not in `keep` out of a leaf, also those that were withheld. Returns
  // the word that stood there; nothing changes unless it is a leaf.
  EptEntry KeepRights(const Turn&, EntrySlot& slot, Level level, Access keep);
  // Clears D, or A. False: it was clear, or the slot holds no leaf.
  bool TakeDirty(const Turn&, EntrySlot& slot, Level level);
  bool TakeAccessed(const Turn&, EntrySlot& slot, Level level);
  // Where there are no A bits: takes all rights out of a leaf, which remembers them (soft_bits.h),
  // so that its next access faults. False: it had none; also if the slot holds no leaf.
  bool SaveRights(const Turn&, EntrySlot& slot, Level level);
  // Shadow tables, where all but the processors' flags is the Turn's: the slot gets `entry`.
  // Returns what stood there, flags included.
  EptEntry Exchange(const Turn&, EntrySlot& slot, EptEntry entry) {
    return EptEntry(slot.word_.exchange(entry.raw()));
  }
  // All entries of a shadow table that nothing links yet: `first`, each next one `step` more.
  void FillUnlinked(const Turn&, Table& table, EptEntry first, uint64_t step);
  // Sets A and D, where a processor has set them in a table that this leaf replaced.
  void AddAccessedDirty(const Turn&, EntrySlot& slot, Level level, EptEntry seen_below);

 private:
  std::optional<EptEntry> ClearBusyLeaf(const Turn&, const Root& root, EntrySlot& slot,
                                        Level level);
  bool TakeWriteFromBusy(const Turn&, EntrySlot& slot, Level level);
  void Fill(const Root& root, const Table& parent, Table& child, Gfn gfn, EptEntry first_child);
  void CountSplit(const Root& root, Level level);

  VmCounts& counts_;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TABLES_ENTRY_CHANGE_H_
