#include "mmu/shadow/shadow_page.h"

#include "absl/strings/str_cat.h"

namespace twinroot::mmu {

ShadowPage::ShadowPage(Table& its_table, const TableIdentity& identity) : table(its_table) {
  table.identity = identity;
  table.parent = nullptr;
  table.named = true;
  if (indirect()) translations_ = std::make_unique<ShadowedTranslation[]>(kEntriesPerTable);
}

Gfn ShadowPage::GfnAt(unsigned index) const {
  if (translations_ != nullptr) return translations_[index].gfn();
  // C2: whatever the index.
  if (role().promoted || role().pae_root) return gfn();
  return gfn() + index * FramesPerEntry(level());
}

GuestRights ShadowPage::RightsAt(unsigned index) const {
  return translations_ != nullptr ? translations_[index].rights() : RightsOf(role());
}

TranslationMismatch ShadowPage::SetTranslation(unsigned index, Gfn gfn, GuestRights rights) {
  if (translations_ != nullptr) {
    translations_[index] = ShadowedTranslation(gfn, rights);
    return {};
  }
  return {.rights = rights != RightsAt(index), .gfn = gfn != GfnAt(index)};
}

std::string ShadowPage::Describe(TranslationMismatch mismatch, unsigned index, Gfn gfn,
                                 GuestRights rights) const {
  const char* kind = role().promoted   ? "promoted"
                     : role().pae_root ? "PAE root"
                     : role().direct   ? "direct"
                                       : "indirect";
  std::string text;
  if (mismatch.rights) {
    absl::StrAppend(&text, "access mismatch under ", kind, " page 0x", absl::Hex(this->gfn().value),
                    ": expected ", RightsAt(index).bits(), ", got ", rights.bits());
  }
  if (mismatch.gfn) {
    absl::StrAppend(&text, text.empty() ? "" : "; ", "gfn mismatch under ", kind, " page 0x",
                    absl::Hex(this->gfn().value), ": expected 0x", absl::Hex(GfnAt(index).value),
                    ", got 0x", absl::Hex(gfn.value));
  }
  return text;
}

}  // namespace twinroot::mmu
