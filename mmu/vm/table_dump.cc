#include "mmu/vm/table_dump.h"

#include "mmu/tables/entry_slot.h"

namespace twinroot::mmu {
namespace {

class Dumper {
 public:
  Dumper(TablePool& pool, const TableImage* after, size_t max)
      : pool_(pool), after_(after), max_(max) {}

  // `first`: the frame that entry 0 of the table covers. Goes where the image says, not the slots:
  // a link that a fault adds meanwhile belongs to the next call.
  void Visit(const Table& table, HwGfn first) {
    TableImage image;
    image.hpa = table.hpa;
    image.level = table.level();
    image.first = table.identity.gfn;
    image.hw_first = first;
    for (uint64_t index = 0; index < kEntriesPerTable; ++index) {
      image.entries[index] = table.slots[index].Load().raw();
    }
    if (IsNew(image)) found_.push_back(image);
    for (uint64_t index = 0; index < kEntriesPerTable && found_.size() < max_; ++index) {
      const EptEntry entry(image.entries[index]);
      if (StateOf(entry, image.level) != SlotState::kLink) continue;
      const HwGfn frame = first + index * FramesPerEntry(image.level);
      if (after_ != nullptr && frame + FramesPerEntry(image.level) <= after_->hw_first) continue;
      if (const Table* child = pool_.At(entry.address())) Visit(*child, frame);
    }
  }

  std::vector<TableImage> Take() { return std::move(found_); }

 private:
  bool IsNew(const TableImage& image) const {
    if (after_ == nullptr || image.hw_first > after_->hw_first) return true;
    return image.hw_first == after_->hw_first && image.level < after_->level;
  }

  TablePool& pool_;
  const TableImage* const after_;
  const size_t max_;
  std::vector<TableImage> found_;
};

}  // namespace

absl::StatusOr<std::vector<TableImage>> DumpTables(AddressSpaceState& vm, MemoryKind root,
                                                   const TableImage* after, size_t max) {
  if (vm.shadow != nullptr) return NoTablesByAddress();
  if (!vm.roots.Has(root)) {
    return absl::FailedPreconditionError("this VM has no shared root");
  }
  // Nothing that a link leads to goes while it is held.
  const Turn turn(vm.turn_mutex);
  Dumper dumper(*vm.env.pool, after, max);
  if (max > 0) dumper.Visit(*vm.roots.Of(root).table, HwGfn(0));
  return dumper.Take();
}

}  // namespace twinroot::mmu
