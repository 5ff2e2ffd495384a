#include "mmu/vm/root_set.h"

namespace twinroot::mmu {

RootSet::~RootSet() {
  for (const Root& root : roots_) {
    if (root.table == nullptr) continue;
    change_.DropRoot(*root.table);
    FreeBelow(*root.table);
  }
}

absl::Status RootSet::Create(const GpaLayout& layout, ExternalTables* external_private,
                             ExternalTables* external_shared) {
  PreloadedTables preload(pool_);
  const absl::Status loaded = pool_.Preload(layout.shared_bit() ? 2 : 1, preload);
  if (!loaded.ok()) return loaded;
  for (const MemoryKind kind : kAllKinds) {
    if (kind == MemoryKind::kShared && !layout.shared_bit()) continue;
    Table& table = preload.Take();
    TableRole role;
    role.level = layout.walk_bits() == 57 ? Level::k256T : Level::k512G;
    role.kind = kind;
    change_.AdoptRoot(table, TableIdentity{Gfn(0), role});
    roots_[static_cast<int>(kind)] = {
        .table = &table,
        .kind = kind,
        .base = layout.HwGfnOf(Gfn(0), kind),
        .external = kind == MemoryKind::kPrivate ? external_private : external_shared};
  }
  return absl::OkStatus();
}

EptPointer RootSet::PointerTo(MemoryKind kind, bool accessed_dirty) const {
  const Root& root = Has(kind) ? Of(kind) : Of(MemoryKind::kPrivate);
  return EptPointer::Make(root.table->hpa, static_cast<int>(root.table->level()), accessed_dirty);
}

void RootSet::FreeBelow(Table& table) {
  for (uint64_t i = 0; i < kEntriesPerTable; ++i) {
    const EptEntry entry = table.slots[i].Load();
    if (!entry.present() || entry.IsLeaf(table.level())) continue;
    if (Table* child = pool_.At(entry.address())) FreeBelow(*child);
  }
  pool_.Free(table);
}

}  // namespace twinroot::mmu
