#include "mmu/engine/zap.h"

#include <optional>

#include "mmu/tables/cursor.h"

namespace twinroot::mmu {
namespace {

// From so many frames on whole tables are detached, which costs one wait for an epoch instead of
// one exchange for each leaf.
constexpr uint64_t kDetachFrom = 8 * FramesPerEntry(Level::k2M);

class Zapper {
 public:
  Zapper(const Turn& turn, TablePool& pool, EntryChange& change, const Root& root, GfnRange range,
         FlushBatch& batch)
      : turn_(turn),
        pool_(pool),
        change_(change),
        root_(root),
        detach_(range.count >= kDetachFrom),
        batch_(batch),
        at_(turn, pool, root, range) {}

  void Run() {
    while (at_.valid()) {
      if (at_.returned()) {
        Prune();
      } else if (Visit()) {
        continue;
      }
      at_.Next();
    }
  }

 private:
  // True: the cursor went down.
  bool Visit() {
    const EptEntry entry = EntryChange::Settle(turn_, at_.slot());
    switch (StateOf(entry, at_.level())) {
      case SlotState::kLink:
        if (!detach_ || !at_.inside()) return at_.Descend(entry);
        if (Table* child = pool_.At(entry.address())) {
          change_.Detach(turn_, at_.slot());
          batch_.AddSubtree(root_, at_.frame(), at_.level(), *child);
        }
        return false;
      case SlotState::kLeaf: {
        const std::optional<EptEntry> last =
            change_.ClearLeaf(turn_, root_, at_.slot(), at_.level());
        if (!last) return Visit();  // it is a link now
        if (batch_.on_leaf()) batch_.on_leaf()(root_.GfnOf(at_.frame()), at_.level(), *last);
        batch_.AddLeaf(root_, at_.frame(), at_.level());
        return false;
      }
      case SlotState::kMmio:
        change_.ClearMark(turn_, at_.slot());
        return false;
      case SlotState::kEmpty:
      case SlotState::kFrozen:
        return false;
    }
    return false;
  }

  // Back from the table below this entry.
  void Prune() {
    const EptEntry entry = at_.entry();
    Table* const child = pool_.At(entry.address());
    // What was zapped is empty; the entry behind it is as likely full as any.
    if (child == nullptr || !change_.Seal(turn_, child->slots, at_.index_below() + 1)) return;
    change_.Detach(turn_, at_.slot());
    change_.Forget(turn_, root_, Below(at_.level()), 0);
    batch_.AddTable(root_, at_.frame(), at_.level(), *child);
  }

  const Turn& turn_;
  TablePool& pool_;
  EntryChange& change_;
  const Root& root_;
  const bool detach_;
  FlushBatch& batch_;
  Cursor at_;
};

}  // namespace

void Zap(const Turn& turn, TablePool& pool, EntryChange& change, const Root& root, GfnRange range,
         FlushBatch& batch) {
  Zapper(turn, pool, change, root, range, batch).Run();
}

}  // namespace twinroot::mmu
