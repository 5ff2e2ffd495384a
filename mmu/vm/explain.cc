#include "mmu/vm/explain.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "mmu/tables/cursor.h"
#include "mmu/vm/leaf_choice.h"
#include "mmu/vm/table_dump.h"

namespace twinroot::mmu {
namespace {

// The walk itself.
void Walk(const EpochGuard& guard, const AddressSpaceState& vm, const Root& root, Gpa gpa,
          Translation& translation) {
  Cursor at(guard, *vm.env.pool, root, GfnRange{vm.config.layout.GfnOf(gpa), 1});
  while (true) {
    const EptEntry entry = at.entry();
    translation.steps.push_back({.level = at.level(),
                                 .index = at.index(),
                                 .entry_hpa = vm.env.pool->AddressOf(&at.slot()),
                                 .entry = entry.raw()});
    const SlotState state = StateOf(entry, at.level());
    if (state == SlotState::kLeaf) {
      translation.mapped = true;
      translation.hpa = entry.address() + gpa.value % BytesPerEntry(at.level());
      translation.level = at.level();
      translation.access = entry.access();
      return;
    }
    if (state != SlotState::kLink || !at.Descend(entry)) return;
  }
}

Explanation Explain(const EpochGuard& guard, const AddressSpaceState& vm, const Root& root, Gfn gfn,
                    const Translation& translation) {
  Explanation why;
  const DirtyLog* log = vm.log.load(std::memory_order_acquire);
  why.dirty_log = log != nullptr;
  if (gfn < vm.gfn_limit) why.attributes = vm.attributes.Get(guard, gfn);
  if (translation.mapped) why.mapped = translation.level;
  const Memslot* slot = vm.slots.Find(guard, gfn);
  why.in_memslot = slot != nullptr;
  if (slot == nullptr || why.attributes.kind != root.kind) return why;
  const std::optional<Pfn> pfn = BackingOf(*slot, gfn, root.kind);
  if (!pfn) return why;
  why.may_map = true;
  // A small page that grants fetches under the NX mitigation is small because it is executed.
  const bool executed = vm.config.nx_huge_pages && translation.mapped &&
                        translation.level == Level::k4K && translation.access.fetch();
  const LevelChoice choice = LevelFor(vm, guard, root,
                                      {.gfn = gfn,
                                       .pfn = *pfn,
                                       .slot = slot->range,
                                       .attributes = why.attributes,
                                       .backing = vm.env.pages->LargestLeaf(gfn, root.kind),
                                       .access = executed ? Access::Fetch() : Access::None(),
                                       .log = log});
  why.allowed = choice.level;
  why.veto = choice.veto;
  // The walk ended below the level that is allowed.
  why.smaller_table = translation.steps.back().level < choice.level;
  return why;
}

}  // namespace

absl::StatusOr<Translation> TranslateAndExplain(const AddressSpaceState& vm, Gpa gpa,
                                                MemoryKind alias, bool execute_only) {
  const GpaLayout& layout = vm.config.layout;
  if (vm.shadow != nullptr) return NoTablesByAddress();
  if (layout.HasStolenBits(gpa)) {
    return absl::InvalidArgumentError(
        absl::StrCat("address 0x", absl::Hex(gpa.value),
                     " carries the shared bit; give the address without it, and the alias"));
  }
  if (absl::Status status = layout.CheckReserved(gpa); !status.ok()) return status;
  if (!vm.roots.Has(alias)) {
    return absl::InvalidArgumentError("this VM has no shared bit, hence no shared alias");
  }
  if (execute_only && !layout.execute_only_bit()) {
    return absl::InvalidArgumentError("this VM has no execute-only alias");
  }
  const Root& root = vm.roots.Of(alias, execute_only);
  Translation translation;
  translation.ept_pointer = vm.roots.PointerTo(alias, vm.config.capabilities.accessed_dirty);
  const EpochGuard guard;
  Walk(guard, vm, root, gpa, translation);
  translation.why = Explain(guard, vm, root, layout.GfnOf(gpa), translation);
  translation.attribute = translation.why.attributes.kind;
  return translation;
}

}  // namespace twinroot::mmu
