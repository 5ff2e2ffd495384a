#include "mmu/engine/audit.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "mmu/hw/mmio_entry.h"

namespace twinroot::mmu {
namespace {

using CheckLeafFunction =
    std::function<absl::Status(const Root& root, Gfn gfn, Level level, EptEntry entry)>;

class Auditor {
 public:
  Auditor(TablePool& pool, const std::vector<Root>& aliases, const EptCapabilities& capabilities,
          int maxphyaddr, const CheckLeafFunction& check_leaf, AuditTotals& totals)
      : pool_(pool),
        aliases_(aliases),
        capabilities_(capabilities),
        maxphyaddr_(maxphyaddr),
        check_leaf_(check_leaf),
        totals_(totals) {}

  // `first`: the frame that entry 0 of the table covers.
  absl::Status Check(const Table& table, HwGfn first) {
    if (!totals_.tables.insert(&table).second) return Violation("is reached twice", table, 0);
    for (uint64_t index = 0; index < kEntriesPerTable; ++index) {
      const EptEntry entry = table.slots[index].Load();
      const SlotState state = StateOf(entry, table.level());
      if (state == SlotState::kFrozen) return Violation("is frozen at rest", table, index);
      if (state != SlotState::kLink && state != SlotState::kLeaf) {
        if (state == SlotState::kEmpty || IsMmioEntry(entry)) continue;
        return Violation("is neither empty, a mark, a link nor a leaf", table, index);
      }
      if (IsEptMisconfiguration(entry, table.level(), capabilities_, maxphyaddr_)) {
        return Violation("is misconfigured", table, index);
      }
      const HwGfn frame = first + index * FramesPerEntry(table.level());
      const absl::Status below = state == SlotState::kLeaf ? CheckLeaf(table, index, frame, entry)
                                                           : CheckLink(table, index, frame, entry);
      if (!below.ok()) return below;
    }
    return absl::OkStatus();
  }

 private:
  // The alias that an entry at `frame` of `level` belongs to: the last that begins in it or before
  // it; one of several that begin in it.
  const Root* AliasOf(HwGfn frame, Level level) const {
    const auto entry_of = [level](HwGfn f) { return f.value / FramesPerEntry(level); };
    const Root* best = nullptr;
    for (const Root& root : aliases_) {
      const uint64_t entry = entry_of(root.base);
      if (entry > entry_of(frame)) continue;
      if (best == nullptr || entry > entry_of(best->base)) best = &root;
    }
    return best;
  }

  absl::Status CheckLeaf(const Table& table, uint64_t index, HwGfn frame, EptEntry entry) {
    const Root* root = AliasOf(frame, table.level());
    if (root == nullptr) return Violation("belongs to no alias", table, index);
    if (!root->rights().Includes(entry.access())) {
      return Violation("grants more than its alias may", table, index);
    }
    ++totals_.leaves[static_cast<int>(root->kind)][static_cast<int>(table.level()) - 1];
    return check_leaf_(*root, root->GfnOf(frame), table.level(), entry);
  }

  absl::Status CheckLink(const Table& table, uint64_t index, HwGfn frame, EptEntry entry) {
    const Table* child = pool_.At(entry.address());
    if (child == nullptr) return Violation("links a page outside the pool", table, index);
    // An entry may hold gfn 0 of its alias and begin below it.
    const Root* root = AliasOf(frame, table.level());
    if (root == nullptr) return Violation("belongs to no alias", table, index);
    const Gfn gfn = frame >= root->base ? root->GfnOf(frame) : Gfn(0);
    if (child->parent != &table || child->identity != ChildIdentity(table.identity, *root, gfn)) {
      return Violation("links a table of another identity", table, index);
    }
    return Check(*child, frame);
  }

  absl::Status Violation(const std::string& what, const Table& table, uint64_t index) const {
    return absl::InternalError(
        absl::StrCat(aliases_.front().kind == MemoryKind::kPrivate ? "private" : "shared",
                     " root, level ", static_cast<int>(table.level()), ", table at gfn 0x",
                     absl::Hex(table.identity.gfn.value), ", entry ", index, " ", what));
  }

  TablePool& pool_;
  const std::vector<Root>& aliases_;
  const EptCapabilities& capabilities_;
  const int maxphyaddr_;
  const CheckLeafFunction& check_leaf_;
  AuditTotals& totals_;
};

}  // namespace

absl::Status AuditRoot(const Turn&, TablePool& pool, const std::vector<Root>& aliases,
                       const EptCapabilities& capabilities, int maxphyaddr,
                       const CheckLeafFunction& check_leaf, AuditTotals& totals) {
  return Auditor(pool, aliases, capabilities, maxphyaddr, check_leaf, totals)
      .Check(*aliases.front().table, HwGfn(0));
}

}  // namespace twinroot::mmu
