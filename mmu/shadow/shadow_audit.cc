#include "mmu/shadow/shadow_audit.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"

namespace twinroot::mmu {
namespace {

class Auditor {
 public:
  explicit Auditor(const ShadowTables& tables) : tables_(tables) {}

  std::optional<std::string> Run() {
    uint64_t leaves = 0;
    std::map<const ShadowPage*, size_t> links;
    for (const ShadowPage& page : tables_.all()) {
      if (page.table.shadow != &page) return Wrong(page, 0, "is not the page of its table");
      if (page.level() < Level::k4K || page.level() > tables_.config().root_level) {
        return Wrong(page, 0, "stands above the root level");
      }
      for (unsigned i = 0; i < kEntriesPerTable; ++i) {
        const SlotState state = tables_.StateAt(page, i);
        if (state == SlotState::kEmpty) continue;
        // C2, C4: nothing beyond what such a page may hold.
        if (i >= page.slots()) return Wrong(page, i, "may not be present");
        if (state == SlotState::kLeaf) {
          ++leaves;
          if (auto wrong = CheckLeaf(page, i)) return wrong;
        } else if (state == SlotState::kLink) {
          const ShadowPage* const child = tables_.ChildAt(page, i);
          if (child == nullptr) return Wrong(page, i, "links what is no shadow page");
          ++links[child];
          if (auto wrong = CheckLink(page, i, *child)) return wrong;
        } else {
          return Wrong(page, i, "is neither leaf nor link");
        }
      }
    }
    for (const ShadowPage& page : tables_.all()) {
      if (links[&page] != page.parents.size()) return Wrong(page, 0, "counts other parents");
    }
    if (leaves != tables_.reverse_map().mappings()) {
      return absl::StrCat(leaves, " shadow leaves stand, ", tables_.reverse_map().mappings(),
                          " are in the reverse map");
    }
    return std::nullopt;
  }

 private:
  std::optional<std::string> CheckLeaf(const ShadowPage& page, unsigned i) {
    if (page.role().promoted || page.role().pae_root) return Wrong(page, i, "must not be a leaf");
    const Gfn gfn = page.GfnAt(i);
    const EptEntry entry = page.slot(i).Load();
    if (gfn.value % FramesPerEntry(page.level()) != 0 ||
        entry.address().value % BytesPerEntry(page.level()) != 0) {
      return Wrong(page, i, "is not aligned to its level");
    }
    const SlotList* const slots = tables_.reverse_map().Find(page.level(), gfn);
    if (slots == nullptr ||
        std::count(slots->slots().begin(), slots->slots().end(), &page.slot(i)) != 1) {
      return Wrong(page, i, "is not in the reverse map of its frame");
    }
    const ShadowGrant grant = GrantOf(tables_.config().format, entry);
    const GuestRights rights = page.RightsAt(i);
    // B5: the guest's rights may be wider, never narrower.
    if ((grant.write && !rights.write()) || (grant.execute && !rights.execute()) ||
        grant.user != rights.user()) {
      return Wrong(page, i, "grants what the guest does not");
    }
    if (page.level() == Level::k4K ? grant.write && tables_.Protected(gfn)
                                   : grant.write && tables_.Shadowed(gfn, page.level())) {
      return Wrong(page, i, "lets the guest write a table that is shadowed");
    }
    return std::nullopt;
  }

  std::optional<std::string> CheckLink(const ShadowPage& page, unsigned i,
                                       const ShadowPage& child) {
    const auto parents = child.parents.slots();
    if (std::count(parents.begin(), parents.end(), &page.slot(i)) != 1) {
      return Wrong(page, i, "is not among the parents of its child");
    }
    if (child.level() != Below(page.level())) return Wrong(page, i, "skips a level");
    // Only above the guest's top there is nothing but promotion; C1.
    if (child.role().promoted && !page.role().promoted) {
      return Wrong(page, i, "promotes below the guest's top");
    }
    if (page.role().direct && !child.role().direct) {
      return Wrong(page, i, "shadows below a direct page");
    }
    // PAE: bits 63:52 of what a processor reads stay clear, and the root lies below 4 GiB.
    if (tables_.IsHardwarePaeRoot(page) &&
        (page.table.hpa.value >> 32 != 0 || PaePdpte(page.slot(i).Load().raw()).Malformed(52))) {
      return Wrong(page, i, "is no PDPTE that a processor takes");
    }
    return std::nullopt;
  }

  static std::optional<std::string> Wrong(const ShadowPage& page, unsigned i, const char* what) {
    return absl::StrCat("entry ", i, " of the shadow of gfn 0x", absl::Hex(page.gfn().value),
                        " at level ", static_cast<int>(page.level()), " ", what);
  }

  const ShadowTables& tables_;
};

}  // namespace

std::optional<std::string> AuditShadow(const Turn&, const ShadowTables& tables) {
  return Auditor(tables).Run();
}

}  // namespace twinroot::mmu
