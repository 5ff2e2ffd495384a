#include "mmu/shadow/shadow_roots.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace twinroot::mmu {
namespace {

constexpr uint64_t kBelow4G = uint64_t{1} << 32;

}  // namespace

absl::StatusOr<ShadowRoots::Loaded> ShadowRoots::Load(const Turn& turn, const Request& request,
                                                      PreloadedTables& preload) {
  const Level root_level = tables_.config().root_level;
  if (request.shape.top > root_level) {
    return absl::UnimplementedError(absl::StrCat(
        "the guest's tables have ", static_cast<int>(*request.shape.top), " levels, its shadow ",
        static_cast<int>(root_level), "; run this guest on a processor that walks more levels"));
  }
  const TableIdentity identity =
      request.shape.Root(Gfn(request.top.value >> kPageShift), root_level);
  ShadowFlush flush = tables_.NewFlush();
  // Kept already, and not obsolete: to the front. Of PAE the tables of four may share a frame.
  for (size_t i = 0; i < kept_.size(); ++i) {
    if (!kept_[i] || tables_.Obsolete(*kept_[i]->root)) continue;
    Kept& kept = *kept_[i];
    if (kept.root->identity() != identity) continue;
    if (request.shape.own_registers && kept.top != request.top) continue;
    if (request.shape.own_registers) UpdatePdptes(turn, kept, request.pdptes, flush);
    flush.Finish(turn);
    std::rotate(kept_.begin(), kept_.begin() + static_cast<ptrdiff_t>(i),
                kept_.begin() + static_cast<ptrdiff_t>(i) + 1);
    return Loaded{kept_[0]->root, true};
  }
  // PDPTE registers are one vCPU's: such a root is nobody else's.
  const bool own = request.shape.own_registers;
  ShadowPage* root = own ? nullptr : tables_.Find(turn, identity);
  if (root == nullptr) {
    const bool room = tables_.MakeRoom(turn, 1, flush);
    flush.Finish(turn);
    if (!room) return absl::ResourceExhaustedError("all shadow pages are in use");
    if (preload.empty()) return absl::ResourceExhaustedError("no page-table page for a root");
    Table& table = preload.Take();
    if (identity.role.pae_root && root_level == Level::k1G && table.hpa.value >= kBelow4G) {
      preload.Return(table);
      return absl::UnavailableError(
          "a PAE root lies below 4 GiB: place the table pool there for this VM");
    }
    root = &tables_.Make(turn, identity,
                         own ? ShadowTables::Sharing::kPrivate : ShadowTables::Sharing::kShared,
                         table, flush);
  }
  tables_.Keep(*root);
  if (kept_.back()) tables_.Drop(turn, *kept_.back()->root, flush);
  std::rotate(kept_.begin(), kept_.end() - 1, kept_.end());
  kept_[0] = Kept{root, request.top, request.pdptes};
  flush.Finish(turn);
  return Loaded{root, false};
}

void ShadowRoots::UpdatePdptes(const Turn& turn, Kept& kept, const Pdptes& pdptes,
                               ShadowFlush& flush) {
  ShadowPage* page = kept.root;
  while (page != nullptr && !page->role().pae_root) page = tables_.ChildAt(*page, 0);
  for (unsigned i = 0; i < pdptes.size() && page != nullptr; ++i) {
    if (pdptes[i] != kept.pdptes[i]) tables_.Clear(turn, *page, i, flush);
  }
  kept.pdptes = pdptes;
}

void ShadowRoots::DropAll(const Turn& turn) {
  ShadowFlush flush = tables_.NewFlush();
  for (std::optional<Kept>& kept : kept_) {
    if (!kept) continue;
    tables_.Drop(turn, *kept->root, flush);
    kept.reset();
  }
  flush.Finish(turn);
}

}  // namespace twinroot::mmu
