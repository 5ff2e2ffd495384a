#include "mmu/vm/root_set.h"

namespace twinroot::mmu {

RootSet::~RootSet() {
  for (const std::vector<Root>& aliases : ByTable()) {
    change_.DropRoot(*aliases.front().table);
    FreeBelow(*aliases.front().table);
  }
}

absl::Status RootSet::Create(const GpaLayout& layout, RootArrangement arrangement,
                             ExternalTables* external_private, ExternalTables* external_shared) {
  const bool two = layout.shared_bit() && arrangement == RootArrangement::kTwoRoots;
  PreloadedTables preload(pool_);
  const absl::Status loaded = pool_.Preload(two ? 2 : 1, preload);
  if (!loaded.ok()) return loaded;
  aliases_ = layout.execute_only_bit() ? 2 : 1;
  Table* table = nullptr;
  for (const MemoryKind kind : kAllKinds) {
    if (kind == MemoryKind::kShared && !layout.shared_bit()) continue;
    if (table == nullptr || two) {
      table = &preload.Take();
      TableRole role;
      role.level = layout.walk_bits() == 57 ? Level::k256T : Level::k512G;
      role.kind = kind;
      change_.AdoptRoot(*table, TableIdentity{Gfn(0), role});
    }
    for (int execute_only = 0; execute_only < aliases_; ++execute_only) {
      roots_[2 * static_cast<int>(kind) + execute_only] = {
          .table = table,
          .kind = kind,
          .execute_only = execute_only == 1,
          .base = layout.HwGfnOf(Gfn(0), kind, execute_only == 1),
          .kind_base = layout.HwGfnOf(Gfn(0), kind),
          .external = kind == MemoryKind::kPrivate ? external_private : external_shared};
    }
  }
  return absl::OkStatus();
}

std::vector<std::vector<Root>> RootSet::ByTable() const {
  std::vector<std::vector<Root>> tables;
  for (const Root& root : roots_) {
    if (root.table == nullptr) continue;
    if (tables.empty() || tables.back().front().table != root.table) tables.emplace_back();
    tables.back().push_back(root);
  }
  return tables;
}

EptPointer RootSet::PointerTo(MemoryKind kind, bool accessed_dirty) const {
  const Root& root = Has(kind) ? Of(kind) : Of(MemoryKind::kPrivate);
  return EptPointer::Make(root.table->hpa, static_cast<int>(root.table->level()), accessed_dirty);
}

void RootSet::FreeBelow(Table& table) {
  for (uint64_t i = 0; i < kEntriesPerTable; ++i) {
    const EptEntry entry = table.slots[i].Load();
    if (StateOf(entry, table.level()) != SlotState::kLink) continue;
    if (Table* child = pool_.At(entry.address())) FreeBelow(*child);
  }
  pool_.Free(table);
}

}  // namespace twinroot::mmu
