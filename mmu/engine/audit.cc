#include "mmu/engine/audit.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "mmu/tables/entry_change.h"

namespace twinroot::mmu {
namespace {

class Auditor {
 public:
  Auditor(TablePool& pool, const Root& root, const EptCapabilities& capabilities, int maxphyaddr,
          const std::function<absl::Status(Gfn, Level, EptEntry)>& check_leaf, AuditTotals& totals)
      : pool_(pool),
        root_(root),
        capabilities_(capabilities),
        maxphyaddr_(maxphyaddr),
        check_leaf_(check_leaf),
        totals_(totals) {}

  // `first`: the frame that entry 0 of the table covers.
  absl::Status Check(const Table& table, HwGfn first) {
    if (!totals_.tables.insert(&table).second) return Violation("is reached twice", table, 0);
    uint32_t present = 0;
    for (uint64_t index = 0; index < kEntriesPerTable; ++index) {
      const EptEntry entry = table.slots[index].Load();
      if (entry == kFrozenEntry) return Violation("is frozen at rest", table, index);
      if (!entry.present()) {
        if (entry != kEmptyEntry) return Violation("is neither empty nor present", table, index);
        continue;
      }
      ++present;
      if (IsEptMisconfiguration(entry, table.level(), capabilities_, maxphyaddr_)) {
        return Violation("is misconfigured", table, index);
      }
      const HwGfn frame = first + index * FramesPerEntry(table.level());
      const absl::Status below = entry.IsLeaf(table.level())
                                     ? CheckLeaf(table, frame, entry)
                                     : CheckLink(table, index, frame, entry);
      if (!below.ok()) return below;
    }
    if (present != table.present.load(std::memory_order_relaxed)) {
      return Violation(
          absl::StrCat("counts ", table.present.load(), " present entries, has ", present), table,
          0);
    }
    return absl::OkStatus();
  }

 private:
  absl::Status CheckLeaf(const Table& table, HwGfn frame, EptEntry entry) {
    ++totals_.leaves[static_cast<int>(root_.kind)][TableCounts::LeafIndex(table.level())];
    return check_leaf_(root_.GfnOf(frame), table.level(), entry);
  }

  absl::Status CheckLink(const Table& table, uint64_t index, HwGfn frame, EptEntry entry) {
    const Table* child = pool_.At(entry.address());
    if (child == nullptr) return Violation("links a page outside the pool", table, index);
    // In the entry that holds gfn 0 of this root the walk may begin below gfn 0.
    const Gfn gfn = frame >= root_.base ? root_.GfnOf(frame) : Gfn(0);
    if (child->parent != &table || child->identity != ChildIdentity(table.identity, gfn)) {
      return Violation("links a table of another identity", table, index);
    }
    return Check(*child, frame);
  }

  absl::Status Violation(const std::string& what, const Table& table, uint64_t index) const {
    return absl::InternalError(
        absl::StrCat(root_.kind == MemoryKind::kPrivate ? "private" : "shared", " root, level ",
                     static_cast<int>(table.level()), ", table at gfn 0x",
                     absl::Hex(table.identity.gfn.value), ", entry ", index, " ", what));
  }

  TablePool& pool_;
  const Root& root_;
  const EptCapabilities& capabilities_;
  const int maxphyaddr_;
  const std::function<absl::Status(Gfn, Level, EptEntry)>& check_leaf_;
  AuditTotals& totals_;
};

}  // namespace

absl::Status AuditRoot(
    const MmuLock::Exclusive&, TablePool& pool, const Root& root,
    const EptCapabilities& capabilities, int maxphyaddr,
    const std::function<absl::Status(Gfn gfn, Level level, EptEntry entry)>& check_leaf,
    AuditTotals& totals) {
  return Auditor(pool, root, capabilities, maxphyaddr, check_leaf, totals)
      .Check(*root.table, HwGfn(0));
}

}  // namespace twinroot::mmu
